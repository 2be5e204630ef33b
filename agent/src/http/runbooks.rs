// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runbooks (`dashboards/runbooks`) as pages: a host in trouble may have no way to the internet.

use super::{
    Pages,
    page::{File, escaped},
};
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use pulldown_cmark::{Options, Parser, html::push_html};
use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

// Made by the build script: `RUNBOOKS`, the name and text of each, in the order of names.
include!(concat!(env!("OUT_DIR"), "/runbooks.rs"));

static FILES: LazyLock<BTreeMap<&str, File>> =
    LazyLock::new(|| RUNBOOKS.iter().map(|(name, text)| (*name, rendered(name, text))).collect());
static INDEX: LazyLock<File> = LazyLock::new(index);

/// `body` as a page of the agent.
fn page(title: &str, body: &str) -> File {
    File::html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} – migscope</title>\n\
         <link rel=\"icon\" href=\"../static/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"../static/page.css\">\n</head>\n<body>\n\
         <nav class=\"runbook\"><a href=\"../\">migscope</a> <a href=\"./\">Runbooks</a></nav>\n\
         <main class=\"runbook\">\n{body}</main>\n</body>\n</html>\n",
        title = escaped(title),
    ))
}

fn rendered(name: &str, text: &str) -> File {
    let mut body = String::new();
    push_html(&mut body, Parser::new_ext(text, Options::ENABLE_TABLES));
    page(name, &body)
}

fn index() -> File {
    let mut body = String::from("<h1>Runbooks</h1>\n<ul>\n");
    for (name, text) in RUNBOOKS {
        let name = escaped(name);
        // Writing to a string cannot fail.
        let _ =
            writeln!(body, "<li><a href=\"{name}\">{name}</a><br>{}</li>", escaped(&meaning(text)));
    }
    body.push_str("</ul>\n");
    page("Runbooks", &body)
}

/// The first sentence of a runbook's meaning.
fn meaning(text: &str) -> String {
    let meaning = text.split("**Meaning.**").nth(1).unwrap_or_default();
    let paragraph =
        meaning.trim().split("\n\n").next().unwrap_or_default().replace(['\n', '`'], " ");
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    match line.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => line,
    }
}

pub(super) fn routes() -> Router<Pages> {
    Router::new()
        .route("/runbooks/", get(async |asked: HeaderMap| INDEX.answer(&asked)))
        .route("/runbooks/{name}", get(runbook))
}

async fn runbook(Path(name): Path<String>, asked: HeaderMap) -> Response {
    match FILES.get(name.strip_suffix(".md").unwrap_or(&name)) {
        Some(file) => file.answer(&asked),
        None => (StatusCode::NOT_FOUND, "no such runbook; /runbooks/ lists them\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_says_what_it_means() {
        assert!(!RUNBOOKS.is_empty());
        for (name, text) in RUNBOOKS {
            assert!(meaning(text).ends_with('.'), "{name}: {:?}", meaning(text));
        }
    }
}
