// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Chromium makes of the page.
//!
//! A script that is added to a copy of the page looks at the layout and writes what it found into the page's title; Chromium prints
//! the document as it then is (`--dump-dom`).

use crate::feed::{Script, migration, told};
use migscope::report::html;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

pub(crate) type Case = (&'static str, fn(&Path));

pub(crate) const CASES: &[Case] = &[
    ("nothing_overlaps_and_nothing_is_cut_off_at_any_width", nothing_overlaps),
    ("the_pointer_shows_the_values_under_it", the_pointer_shows),
    ("a_dark_page_has_dark_ground_and_light_text", dark_and_light),
];

/// Chromium, or why there is none.
pub(crate) fn find() -> Result<PathBuf, String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    places
        .find(|place| place.is_file())
        .ok_or_else(|| "no Chromium in PATH; `apt-get install chromium` brings it".to_owned())
}

/// Renders the page in a frame that is `width` wide (a window cannot be as narrow as a phone), and gives what `look` found in it. `look`
/// is the body of a function of the page's window `w` and its document `d` that returns something for JSON.
fn found(chromium: &Path, width: u32, flags: &[&str], look: &str) -> Value {
    let folder = TempDir::new().expect("a folder");
    let evil = "web <b>&amp; \u{1f4a5} with-a-name-that-is-longer-than-a-phone-is-wide";
    let script = Script { vm: evil.into(), ..Script::default() };
    fs::write(folder.path().join("page.html"), html::page(&told(migration(&script))))
        .expect("written");
    let frame = format!(
        "<!DOCTYPE html><title>-</title><body style=\"margin:0\"><iframe src=\"page.html\" width=\"{width}\" height=\"900\" \
         style=\"border:0\"></iframe><pre></pre><script>onload = () => {{
             const w = document.querySelector('iframe').contentWindow, d = w.document;
             let found;
             try {{ found = (() => {{ {look} }})(); }} catch (error) {{ found = {{ error: String(error) }}; }}
             document.querySelector('pre').textContent = JSON.stringify(found);
         }}</script>"
    );
    let outer = folder.path().join("outer.html");
    fs::write(&outer, frame).expect("written");
    let mut command = Command::new(chromium);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        // The frame is of another file, which is another origin to Chromium.
        .arg("--allow-file-access-from-files")
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .args(["--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom"])
        .args(flags)
        .arg(format!("file://{}", outer.display()))
        .stderr(Stdio::null());
    let output = command.output().expect("Chromium runs");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = dom.split_once("<pre>").and_then(|(_, rest)| rest.split_once("</pre>"));
    let json = json.unwrap_or_else(|| panic!("no answer: {dom}")).0;
    let json = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let found: Value =
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert!(found.get("error").is_none(), "{found}");
    found
}

/// Labels of an axis that touch each other, labels outside of the page, and whether the page is wider than its frame.
const LAYOUT: &str = "
    const box = (e) => e.getBoundingClientRect();
    const touching = [];
    for (const axis of d.querySelectorAll('.xs, .ys')) {
        const labels = [...axis.children].filter((e) => w.getComputedStyle(e).display !== 'none').map((e) => [e.textContent, box(e)]);
        for (const [i, [a, ra]] of labels.entries()) for (const [b, rb] of labels.slice(i + 1)) {
            const apart = ra.right <= rb.left || rb.right <= ra.left || ra.bottom <= rb.top || rb.bottom <= ra.top;
            if (!apart) touching.push([a, b]);
        }
    }
    const outside = [...d.querySelectorAll('.xs span, .ys span, .tone, h1, h2, h3, figcaption, dd, .legend li')]
        .filter((e) => w.getComputedStyle(e).display !== 'none')
        .filter((e) => box(e).left < 0 || box(e).right > w.innerWidth)
        .map((e) => e.textContent);
    const plots = [...d.querySelectorAll('.area')].map((e) => [box(e).width, box(e).height]);
    return { touching, outside, plots, wide: d.documentElement.scrollWidth - w.innerWidth };";

fn nothing_overlaps(chromium: &Path) {
    for width in [360, 768, 1280] {
        let found = found(chromium, width, &[], LAYOUT);
        assert_eq!(found["touching"], Value::Array(Vec::new()), "labels at {width}");
        assert_eq!(found["outside"], Value::Array(Vec::new()), "at {width}");
        assert_eq!(found["wide"].as_i64().map(|wide| wide <= 0), Some(true), "{width}: {found}");
        let plots = found["plots"].as_array().expect("a list");
        assert!(plots.len() >= 8, "{found}");
        for plot in plots {
            let large = plot[0].as_f64() > Some(220.0) && plot[1].as_f64() > Some(150.0);
            assert!(large, "a plot at {width}: {plot}");
        }
    }
}

fn the_pointer_shows(chromium: &Path) {
    let look = "
        const area = d.querySelector('.area'), box = area.getBoundingClientRect();
        const at = (x) => area.dispatchEvent(new w.PointerEvent('pointermove', { clientX: box.left + x * box.width, bubbles: true }));
        at(0.5);
        const tip = area.querySelector('.tip'), shown = [...tip.children].map((e) => e.textContent), hidden = tip.hidden;
        area.dispatchEvent(new w.PointerEvent('pointerleave'));
        return { shown, hidden, after: tip.hidden };";
    let found = found(chromium, 1000, &[], look);
    assert_eq!((&found["hidden"], &found["after"]), (&Value::Bool(false), &Value::Bool(true)));
    // Half-way is at 1152 ms; the nearest readings are at 1160 ms, 1150.5 ms after the beginning.
    let shown: Vec<_> =
        found["shown"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(shown, ["+1.15 s", "pending, as last told: 25.0 MiB", "sent: 23.0 MiB"]);
}

fn dark_and_light(chromium: &Path) {
    let look = "
        const light = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number); return (r * 0.3 + g * 0.6 + b * 0.1) / 255; };
        const of = w.getComputedStyle(d.body);
        return { dark: w.matchMedia('(prefers-color-scheme: dark)').matches, ground: light(of.backgroundColor), text: light(of.color) };";
    for (flags, is_dark) in [
        (&["--blink-settings=preferredColorScheme=1"][..], false),
        (&["--blink-settings=preferredColorScheme=0"], true),
    ] {
        let found = found(chromium, 1000, flags, look);
        assert_eq!(found["dark"].as_bool(), Some(is_dark), "{found}");
        let (ground, text) =
            (found["ground"].as_f64().expect("a share"), found["text"].as_f64().expect("a share"));
        assert!((ground - text).abs() > 0.6 && (ground < text) == is_dark, "{found}");
    }
}
