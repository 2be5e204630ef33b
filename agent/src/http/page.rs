// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live page: files that are part of the binary.
//!
//! Browsers keep them and ask each time whether they are still the ones (`no-cache`, `ETag`), so that a page never runs with the
//! scripts of another version.

use super::Pages;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
};

const INDEX: &str = include_str!("page/index.html");
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What lies below `/static/`: name, type, text.
const FILES: [(&str, &str, &str); 12] = [
    ("page.css", CSS, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("connection.js", SCRIPT, include_str!("page/connection.js")),
    ("device.js", SCRIPT, include_str!("page/device.js")),
    ("downtime.js", SCRIPT, include_str!("page/downtime.js")),
    ("element.js", SCRIPT, include_str!("page/element.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("history.js", SCRIPT, include_str!("page/history.js")),
    ("migrating.js", SCRIPT, include_str!("page/migrating.js")),
    ("plot.js", SCRIPT, include_str!("page/plot.js")),
    ("sessions.js", SCRIPT, include_str!("page/sessions.js")),
    ("verdict.js", SCRIPT, include_str!("page/verdict.js")),
];
const ICON: &str = include_str!("page/icon.svg");

/// A file as it is served.
#[derive(Clone)]
pub(super) struct File {
    content_type: HeaderValue,
    tag: HeaderValue,
    text: Bytes,
}

impl File {
    pub(super) fn new(content_type: &'static str, text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        let tag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
            .expect("quotes and digits");
        Self { content_type: HeaderValue::from_static(content_type), tag, text }
    }

    pub(super) fn html(text: String) -> Self {
        Self::new(HTML, text)
    }

    /// The file, or that it is still the one that the client has.
    pub(super) fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::ETAG, self.tag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        if self.is_what_they_have(asked) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let content_type = [(header::CONTENT_TYPE, self.content_type.clone())];
        (headers, content_type, self.text.clone()).into_response()
    }

    /// RFC 9110, 13.1.2: a list of tags, compared weakly, or a star.
    fn is_what_they_have(&self, asked: &HeaderMap) -> bool {
        let lines = asked.get_all(header::IF_NONE_MATCH).into_iter();
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.tag.as_bytes()
        })
    }
}

/// The page with its files.
pub(super) struct Page {
    front: File,
    files: BTreeMap<&'static str, File>,
}

impl Page {
    /// The page, which leads to the metrics at `telemetry_path`.
    pub(super) fn new(telemetry_path: &str) -> Self {
        let host = rustix::system::uname();
        let front = INDEX
            .replace("{{host}}", &escaped(&host.nodename().to_string_lossy()))
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{metrics}}", &escaped(telemetry_path.trim_start_matches('/')));
        let mut files: BTreeMap<_, _> = FILES
            .into_iter()
            .map(|(name, content_type, text)| (name, File::new(content_type, text)))
            .collect();
        files.insert("icon.svg", File::new("image/svg+xml", ICON));
        Self { front: File::html(front), files }
    }
}

/// Text as it stands in HTML, in attributes too.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(letter),
        }
    }
    html
}

pub(super) fn front() -> Router<Pages> {
    Router::new().route(
        "/",
        get(async |State(pages): State<Pages>, asked: HeaderMap| pages.page.front.answer(&asked)),
    )
}

pub(super) fn files() -> Router<Pages> {
    Router::new().route("/static/{name}", get(file))
}

async fn file(State(pages): State<Pages>, Path(name): Path<String>, asked: HeaderMap) -> Response {
    match pages.page.files.get(name.as_str()) {
        Some(file) => file.answer(&asked),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stays_small() {
        let scripts: usize =
            FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT).map(|(.., text)| text.len()).sum();
        // Comments and all; they go over the wire as they are.
        assert!(scripts < 42 * 1024, "{scripts} bytes of scripts");
    }

    #[test]
    fn nothing_is_inline_and_nothing_is_fetched_from_elsewhere() {
        for text in FILES.iter().map(|(.., text)| *text).chain([INDEX, ICON]) {
            assert!(!text.contains("style=\"") && !text.contains("innerHTML"), "{text}");
            for (at, _) in text.match_indices("://") {
                let rest = &text[at..];
                assert!(
                    rest.starts_with("://www.w3.org/2000/svg"),
                    "{}",
                    rest.lines().next().unwrap_or("")
                );
            }
        }
        assert!(
            INDEX.matches("<script").count()
                == INDEX.matches("<script type=\"module\" src=\"").count()
        );
    }

    #[test]
    fn a_tag_is_recognised_in_a_list_and_when_weak() {
        let file = File::html("text".into());
        let tag = file.tag.to_str().expect("a text").to_owned();
        let has = |value: String| {
            let value = value.parse().expect("a value");
            file.is_what_they_have(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]))
        };
        for same in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            assert!(has(same.clone()), "{same}");
        }
        for other in ["\"x\"".to_owned(), tag.replace('"', "")] {
            assert!(!has(other.clone()), "{other}");
        }
        assert!(!file.is_what_they_have(&HeaderMap::new()));
        assert_ne!(File::html("other".into()).tag, file.tag);
    }

    #[test]
    fn what_comes_from_outside_is_text() {
        assert_eq!(
            escaped("<img src='x' onerror=\"y\">&"),
            "&lt;img src=&#39;x&#39; onerror=&quot;y&quot;&gt;&amp;"
        );
    }
}
