// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page as text: what is in it, and what can never be.

use crate::feed::{Script, migration, told};
use migscope::report::{compare::compare, html};

fn page(vm: &str) -> String {
    html::page(&told(migration(&Script { vm: vm.into(), ..Script::default() })))
}

#[test]
fn a_name_is_text_wherever_it_stands() {
    let evil = "</title></script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&";
    let script = Script { vm: evil.into(), ..Script::default() };
    let document = told(migration(&script));
    let comparison = compare(&document, &document).expect("both have one");
    for page in [html::page(&document), html::comparison(&comparison)] {
        assert!(!page.contains("<script>alert") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "it is shown");
        // Our own: the script, and one block of values a plot.
        let blocks = page.matches("application/json").count();
        assert_eq!(page.matches("<script").count(), 1 + blocks);
        assert_eq!(page.matches("</script>").count(), 1 + blocks);
    }
}

#[test]
fn it_asks_nobody_for_anything() {
    let page = page("web");
    for outside in ["src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<iframe", "http-equiv"]
    {
        assert!(!page.contains(outside), "{outside}");
    }
    for address in ["http://", "https://", "\"//"] {
        for (place, _) in page.match_indices(address) {
            // The name of a namespace, which nobody fetches.
            assert!(
                page[place..].starts_with("http://www.w3.org/2000/svg"),
                "{}",
                &page[place..place + 60]
            );
        }
    }
    let links: Vec<_> =
        page.match_indices("href=\"").map(|(place, _)| &page[place + 6..place + 11]).collect();
    assert!(
        links.iter().all(|link| link.starts_with('#') || link.starts_with("data:")),
        "{links:?}"
    );
}

#[test]
fn every_plot_is_well_formed_and_inside_its_frame() {
    let page = page("web");
    let mut plots = Vec::new();
    for (begin, _) in page.match_indices("<svg") {
        let length = page[begin..].find("</svg>").expect("it ends") + "</svg>".len();
        let svg =
            roxmltree::Document::parse(&page[begin..begin + length]).expect("well-formed XML");
        assert_eq!(svg.root_element().attribute("viewBox"), Some("0 0 1000 1000"));
        for path in svg
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "path")))
        {
            let path = path.attribute("d").expect("a path");
            for number in
                path.split(|c: char| c.is_ascii_alphabetic() || c == ' ').filter(|n| !n.is_empty())
            {
                let number: f64 = number.parse().expect("a number");
                assert!((0.0..=1000.0).contains(&number), "{number} in {path}");
            }
        }
        plots.push(svg.root_element().attribute("aria-label").expect("a name").to_owned());
    }
    for plot in [
        "Pending and moved device data",
        "Dirty rate and throughput",
        "Iterations",
        "Prediction and outcome",
        "Latencies by percentile",
    ] {
        assert!(plots.iter().any(|name| name == plot), "{plot}: {plots:?}");
    }
}

#[test]
fn every_section_is_there() {
    let page = page("web");
    for section in [
        "web migrated in 2.40 s, downtime 389 ms",
        "Machines",
        "Downtime 389 ms",
        "read the last device data",
        "State by state",
        "Half-way: 1.13 s were left",
        "read pending_bytes",
        "Changes of state",
        "reserved_bits",
        "What is not known",
        "2026-11-22 22:00:00.000 UTC",
    ] {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn a_long_migration_does_not_make_a_page_that_no_browser_opens() {
    let mut feed = migration(&Script::default());
    let queries: Vec<_> = feed
        .iter()
        .filter(|input| {
            matches!(input, migscope::feed::Input::Event(migscope::event::Event::DirtyQuery(_)))
        })
        .cloned()
        .collect();
    let place = feed.len() - 6;
    for _ in 0..20_000 {
        feed.splice(place..place, queries.first().cloned());
    }
    let page = html::page(&told(feed));
    assert!(page.len() < 200_000, "{}", page.len());
}
