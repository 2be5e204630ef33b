// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the view shows, and what the keys do to it.
//!
//! ```text
//!   snapshot ──▶ rates, rows ──filter, order, tags──▶ entries ──▶ view
//!   key ───────▶ selection, order, filter, page ────────┘
//! ```
//!
//! The selection is a device, not a place: lines come, go and change their order under it, and it stays. When its device is gone it
//! goes to the one that took its place.

use super::{
    column::Order,
    input::{Action, Mode},
    rate::Track,
    row::{Phase, Row},
};
use crate::{
    session::{machine::Migration, report::Report, timeline::Point},
    snapshot::Snapshot,
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

/// Longest filter that can be typed, in characters.
const FILTER_CHARS: usize = 64;

/// What came from the source at one time.
#[derive(Clone, Debug)]
pub struct Update {
    /// Everything.
    pub snapshot: Snapshot,
    /// The points of one session, by its number, where they were asked for.
    pub timeline: Option<(u64, Vec<Point>)>,
}

/// How it stands with the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// Nothing has come yet.
    Waiting,
    /// It answers.
    Live,
    /// It does not answer any more, or never did.
    Gone {
        /// When it was first missed.
        since: SystemTime,
        /// Why.
        why: String,
    },
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A machine, above its devices; the devices of no known machine have `None`.
    Machine {
        /// Its process.
        pid: Option<u32>,
        /// Its name, where that is known.
        vm: Option<&'a str>,
        /// How many of its devices are shown.
        devices: usize,
        /// Its migration that began last.
        migration: Option<&'a Migration>,
    },
    /// A device.
    Device {
        /// What is known of it.
        row: &'a Row,
        /// In the tree: whether it is the last of its machine.
        last_of_machine: Option<bool>,
    },
}

/// Everything that is on the screen.
#[derive(Clone, Debug)]
pub struct Model {
    source: String,
    contact: Contact,
    snapshot: Option<Snapshot>,
    rows: Vec<Row>,
    tracks: BTreeMap<String, Track>,
    timeline: Option<(u64, Vec<Point>)>,
    selected: Option<String>,
    tagged: BTreeSet<String>,
    order: Order,
    filter: String,
    mode: Mode,
    /// What help was called from.
    below_help: Mode,
    tree: bool,
    paused: bool,
    scroll: usize,
}

/// What is to be done outside of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Draw.
    Draw,
    /// Draw everything, whatever was drawn before.
    Redraw,
    /// Take the terminal over once more, and draw everything.
    TakeAgain,
    /// Let the shell have the terminal.
    Suspend,
    /// The end.
    Quit,
}

impl Model {
    /// One that shows nothing yet; `source` says where the data comes from.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            contact: Contact::Waiting,
            snapshot: None,
            rows: Vec::new(),
            tracks: BTreeMap::new(),
            timeline: None,
            selected: None,
            tagged: BTreeSet::new(),
            order: Order::default(),
            filter: String::new(),
            mode: Mode::Table,
            below_help: Mode::Table,
            tree: false,
            paused: false,
            scroll: 0,
        }
    }

    /// Takes in what the source said. While the view is paused it is heard that it answers, and no more.
    pub fn updated(&mut self, update: Update) {
        self.contact = Contact::Live;
        if self.paused {
            return;
        }
        let Update { snapshot, timeline } = update;
        let place = self.selected_place();
        let now_ns = snapshot.monotonic_ns;
        let mut last_ended: BTreeMap<&str, &Report> = BTreeMap::new();
        for session in snapshot.sessions.iter().filter(|session| session.result.is_some()) {
            last_ended.insert(&session.device, session); // by their numbers: the last one stays
        }
        let mut before = std::mem::take(&mut self.tracks);
        self.rows.clear();
        for device in &snapshot.devices {
            let mut track = before.remove(&device.device).unwrap_or_default();
            track.take(now_ns, device.session.as_ref());
            let last = last_ended.get(&*device.device).copied();
            self.rows.push(Row::new(device, last, &track, now_ns));
            self.tracks.insert(device.device.clone(), track);
        }
        self.tagged.retain(|device| self.tracks.contains_key(device));
        // Points of another session are those that were asked for before the selection moved.
        if let Some((session, points)) = timeline
            && self.rows.iter().any(|row| row.session.as_ref().is_some_and(|s| s.id == session))
        {
            self.timeline = Some((session, points));
        }
        self.snapshot = Some(snapshot);
        self.keep_selection(place);
    }

    /// The source did not answer at `at`; what is known stays, as of then.
    pub fn missed(&mut self, why: impl Into<String>, at: SystemTime) {
        let since = match &self.contact {
            Contact::Gone { since, .. } => *since,
            Contact::Waiting | Contact::Live => at,
        };
        self.contact = Contact::Gone { since, why: why.into() };
    }

    /// Does what the user wants; `page` is how many lines a screen has.
    pub fn act(&mut self, action: Action, page: usize) -> Outcome {
        let page = isize::try_from(page.max(1)).unwrap_or(isize::MAX);
        match action {
            Action::Move(by) => self.go(by),
            Action::Page(by) => self.go(by.saturating_mul(page)),
            Action::First => self.go(isize::MIN),
            Action::Last => self.go(isize::MAX),
            Action::Detail if self.selected.is_some() => self.show(Mode::Detail),
            Action::Detail => {}
            Action::Help => {
                self.below_help = self.mode;
                self.mode = Mode::Help;
            }
            Action::Back if self.mode == Mode::Help => self.mode = self.below_help,
            Action::Back => self.show(Mode::Table),
            Action::Tree => self.tree = !self.tree,
            Action::Sort(forward) => self.order = self.order.step(forward),
            Action::Reverse => self.order.reversed = !self.order.reversed,
            Action::Filter => self.show(Mode::Filter),
            Action::Type(char) => self.refilter(|filter| {
                if !char.is_control() && filter.chars().count() < FILTER_CHARS {
                    filter.push(char);
                }
            }),
            Action::Erase => self.refilter(|filter| {
                filter.pop();
            }),
            Action::Accept => self.show(Mode::Table),
            Action::Clear => {
                self.refilter(String::clear);
                self.show(Mode::Table);
            }
            Action::Pause => self.paused = !self.paused,
            Action::Tag => {
                if let Some(selected) = self.selected.clone()
                    && !self.tagged.remove(&selected)
                {
                    self.tagged.insert(selected);
                }
            }
            Action::UntagAll => self.tagged.clear(),
            Action::Redraw => return Outcome::Redraw,
            Action::Suspend => return Outcome::Suspend,
            Action::Quit => return Outcome::Quit,
        }
        Outcome::Draw
    }

    fn show(&mut self, mode: Mode) {
        self.mode = mode;
        self.scroll = 0;
    }

    fn refilter(&mut self, change: impl FnOnce(&mut String)) {
        let place = self.selected_place();
        change(&mut self.filter);
        self.keep_selection(place);
    }

    fn go(&mut self, by: isize) {
        if self.mode == Mode::Detail {
            // The end is known to the view alone, which shows no more than there is.
            self.scroll = self.scroll.saturating_add_signed(by).min(usize::from(u16::MAX));
            return;
        }
        let count = self.devices().count();
        let place = self.selected_place().unwrap_or(0);
        let place = place.saturating_add_signed(by).min(count.saturating_sub(1));
        self.selected = self.device_at(place);
    }

    /// The place of the selection among the devices that are shown.
    fn selected_place(&self) -> Option<usize> {
        let selected = self.selected.as_deref()?;
        self.devices().position(|row| row.device.device == selected)
    }

    fn device_at(&self, place: usize) -> Option<String> {
        self.devices().nth(place).map(|row| row.device.device.clone())
    }

    /// Puts the selection on a device that is shown; it was at `place` before.
    fn keep_selection(&mut self, place: Option<usize>) {
        if self.selected_place().is_some() {
            return;
        }
        let count = self.devices().count();
        let place = place.unwrap_or(0).min(count.saturating_sub(1));
        self.selected = self.device_at(place);
        if self.mode == Mode::Detail {
            self.show(Mode::Table);
        }
    }

    fn devices(&self) -> impl Iterator<Item = &Row> {
        self.entries().into_iter().filter_map(|entry| match entry {
            Entry::Device { row, .. } => Some(row),
            Entry::Machine { .. } => None,
        })
    }

    /// The lines of the table, in their order.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        let shown = |row: &&Row| self.is_tagged(row) || row.contains(&self.filter);
        let mut rows: Vec<&Row> = self.rows.iter().filter(shown).collect();
        rows.sort_by(|a, b| self.compare(a, b));
        if !self.tree {
            let device = |row| Entry::Device { row, last_of_machine: None };
            return rows.into_iter().map(device).collect();
        }
        // Machines stand in the order of their first devices.
        let mut machines: Vec<(Machine<'_>, Vec<&Row>)> = Vec::new();
        for row in rows {
            let machine = Machine::of(row);
            match machines.iter_mut().find(|(other, _)| *other == machine) {
                Some((_, devices)) => devices.push(row),
                None => machines.push((machine, vec![row])),
            }
        }
        let mut entries = Vec::new();
        for (Machine { pid, vm }, devices) in machines {
            let count = devices.len();
            let migration = pid.and_then(|pid| self.migration(pid));
            entries.push(Entry::Machine { pid, vm, devices: count, migration });
            for (place, row) in devices.into_iter().enumerate() {
                entries.push(Entry::Device { row, last_of_machine: Some(place + 1 == count) });
            }
        }
        entries
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let tagged = self.is_tagged(b).cmp(&self.is_tagged(a));
        tagged.then_with(|| self.order.compare(a, b))
    }

    fn migration(&self, pid: u32) -> Option<&Migration> {
        let migrations = &self.snapshot.as_ref()?.migrations;
        migrations.iter().rev().find(|migration| migration.pid == pid)
    }

    /// Where the data comes from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How it stands with the source.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// What the source said last.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// All devices, also those that the filter hides.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The device that is selected.
    pub fn selected(&self) -> Option<&Row> {
        let selected = self.selected.as_deref()?;
        self.rows.iter().find(|row| row.device.device == selected)
    }

    /// Whether this is the selected device.
    pub fn is_selected(&self, row: &Row) -> bool {
        self.selected.as_deref() == Some(&*row.device.device)
    }

    /// Whether this device is kept at the top.
    pub fn is_tagged(&self, row: &Row) -> bool {
        self.tagged.contains(&row.device.device)
    }

    /// The session whose points are wanted: that of the page that is open.
    pub fn wants_timeline(&self) -> Option<u64> {
        let open = self.mode == Mode::Detail
            || (self.mode == Mode::Help && self.below_help == Mode::Detail);
        self.selected().filter(|_| open)?.session.as_ref().map(|session| session.id)
    }

    /// The points of that session, as far as they have come.
    pub fn timeline(&self) -> Option<&[Point]> {
        let session = self.selected()?.session.as_ref()?.id;
        self.timeline.as_ref().filter(|(id, _)| *id == session).map(|(_, points)| &points[..])
    }

    /// How many devices migrate.
    pub fn migrating(&self) -> usize {
        self.rows.iter().filter(|row| row.phase() == Phase::Migrating).count()
    }

    /// What the keys go to.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The order of the lines.
    pub fn order(&self) -> Order {
        self.order
    }

    /// What is looked for.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether the devices are grouped by their machines.
    pub fn is_tree(&self) -> bool {
        self.tree
    }

    /// Whether newer data is left out.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Lines that the page of a device is scrolled down by.
    pub fn scroll(&self) -> usize {
        self.scroll
    }
}

/// What devices are grouped by: the process that has them open, which is the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Machine<'a> {
    pid: Option<u32>,
    vm: Option<&'a str>,
}

impl<'a> Machine<'a> {
    fn of(row: &'a Row) -> Self {
        // Nobody has a closed device open; the process is the one that closed it.
        let closed = row.device.state.as_deref() == Some("closed");
        let pid = row.device.pid.filter(|_| !closed);
        Self { pid, vm: row.vm().filter(|_| pid.is_some()) }
    }
}

#[cfg(test)]
mod tests;
