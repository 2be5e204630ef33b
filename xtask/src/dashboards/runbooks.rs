// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runbooks as a dashboard of text: who is woken by an alert reads them beside the graphs, and nobody needs a server for them.
//!
//! They are the pages of dashboards/runbooks as they are; a change there makes this dashboard one that is not current.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::dashboard::{Dashboard, Row};
use super::field::Link;
use super::panel::Panel;
use super::variable::Variable;

/// Where the pages are.
pub(super) const FOLDER: &str = "dashboards/runbooks";
/// The list of the pages, for who reads them there: the dashboard is one by itself.
const INDEX: &str = "README";
/// The heading is the first panel, the pages follow.
const FIRST_PANEL: u32 = 2;

/// One page.
#[derive(Clone, Debug)]
struct Runbook {
    /// Of its file, without the extension: an alert, or an alert and a reason.
    name: String,
    title: String,
    text: String,
}

/// All pages, by name.
#[derive(Clone, Debug)]
pub(super) struct Runbooks(Vec<Runbook>);

impl Runbooks {
    /// Reads the pages of a checkout.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let folder = root.join(FOLDER);
        let mut pages = Vec::new();
        let listing = fs::read_dir(&folder).with_context(|| format!("failed to list {FOLDER}"))?;
        for item in listing {
            let path = item.with_context(|| format!("failed to list {FOLDER}"))?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let page = path.extension().is_some_and(|extension| extension == "md");
            if !page || name == INDEX {
                continue;
            }
            let text = fs::read_to_string(&path)
                .with_context(|| format!("failed to read {FOLDER}/{name}.md"))?;
            let (title, text) = text
                .strip_prefix("# ")
                .and_then(|rest| rest.split_once('\n'))
                .with_context(|| format!("{FOLDER}/{name}.md does not begin with a heading"))?;
            pages.push(Runbook {
                name,
                title: title.trim().to_owned(),
                text: text.trim().to_owned(),
            });
        }
        ensure!(!pages.is_empty(), "{FOLDER} has no page");
        pages.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self(pages))
    }

    /// The link to one page.
    pub(super) fn link(&self, name: &str) -> Result<Link> {
        let place = (FIRST_PANEL..).zip(&self.0).find(|(_, page)| page.name == name);
        let (panel, page) = place.with_context(|| format!("{FOLDER}/{name}.md is missing"))?;
        Ok(Link::runbook(&page.title, panel))
    }

    /// The text with its links from page to page leading to their panels.
    fn linked(&self, text: &str) -> String {
        let pages = (FIRST_PANEL..).zip(&self.0);
        pages.fold(text.to_owned(), |text, (panel, page)| {
            text.replace(&format!("]({}.md)", page.name), &format!("]({})", Link::page(panel)))
        })
    }

    /// The dashboard of all of them.
    pub(super) fn dashboard(&self) -> Dashboard {
        let panels = self.0.iter().map(|page| {
            let description =
                format!("The runbook {}, as it is in {FOLDER}/{}.md.", page.title, page.name);
            Panel::text(&page.title, &description, &self.linked(&page.text)).size(12, 11)
        });
        Dashboard {
            uid: "migscope-runbooks",
            title: "migscope / Runbooks",
            description: "What each alert and each reason means, and what to do. Made of the pages in dashboards/runbooks.",
            last: "1h",
            variables: vec![Variable::datasource(), Variable::job(), Variable::instance()],
            annotations: Vec::new(),
            rows: vec![Row::open("Runbooks", panels.collect())],
        }
    }
}
