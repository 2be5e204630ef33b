// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table: a line a device.
//!
//! Columns that have no room are left out, the least important first; what is left over goes to those that can use it. So a wide
//! screen shows names whole and a sparkline, and one of 60 columns still shows state, progress and verdict.

use super::{
    canvas::Canvas,
    marks::{bar, percent, sparkline},
    theme::Theme,
};
use crate::top::{
    column::{Column, Order},
    model::{Contact, Entry, Model},
    printable::{cells, printable},
    rate::Rate,
    row::{Phase, Row},
    units::{bytes, duration, whole},
};
use ratatui::style::Style;

/// Unknown.
const UNKNOWN: &str = "?";
/// Does not apply.
const NOTHING: &str = "-";

/// How wide each column is, and which ones are left out.
impl Column {
    /// From the one that is always there to the one that goes first.
    const BY_IMPORTANCE: [Self; 12] = [
        Self::Device,
        Self::State,
        Self::Progress,
        Self::Time,
        Self::Verdict,
        Self::Throughput,
        Self::Pending,
        Self::Role,
        Self::Vm,
        Self::Dirty,
        Self::Sparkline,
        Self::Protocol,
    ];

    /// Who is given what is left over, first to last, and up to which width.
    const BY_APPETITE: [(Self, u16); 7] = [
        (Self::Progress, 15),
        (Self::Role, 11),
        (Self::Vm, 16),
        (Self::Verdict, 60),
        (Self::Sparkline, 30),
        (Self::Device, 40),
        (Self::Sparkline, 60),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Device => "DEVICE",
            Self::Vm => "VM",
            Self::Role => "ROLE",
            Self::Protocol => "PROTO",
            Self::State => "STATE",
            Self::Time => "TIME",
            Self::Progress => "PROGRESS",
            Self::Throughput => "DATA/s",
            Self::Dirty => "DIRTY/s",
            Self::Pending => "PENDING",
            Self::Sparkline => "DATA/s, LAST 60",
            Self::Verdict => "VERDICT",
        }
    }

    /// Cells that it needs, without the gap before the next.
    fn least(self) -> u16 {
        match self {
            Self::Role => 4,
            Self::Protocol => 6,
            Self::Vm => 8,
            Self::Time | Self::Throughput => 6,
            Self::Dirty | Self::Pending => 7,
            Self::Progress => 9,
            Self::Device => 12,
            Self::State => 13,
            Self::Sparkline | Self::Verdict => 15,
        }
    }

    fn is_right_aligned(self) -> bool {
        matches!(self, Self::Time | Self::Throughput | Self::Dirty | Self::Pending)
    }

    /// Cells that it could use for these lines.
    fn most(self, entries: &[Entry<'_>]) -> u16 {
        let widest = |of: &dyn Fn(&Row) -> usize| {
            let rows = entries.iter().filter_map(|entry| match entry {
                Entry::Device { row, .. } => Some(*row),
                Entry::Machine { .. } => None,
            });
            u16::try_from(rows.map(of).max().unwrap_or(0)).unwrap_or(u16::MAX)
        };
        let branch = usize::from(is_tree(entries)) * BRANCH_CELLS;
        match self {
            Self::Device => widest(&|row| cells(&row.device.device) + branch),
            Self::Vm => widest(&|row| row.vm().map_or(0, cells)),
            Self::Role => widest(&|row| row.role().map_or(0, cells)),
            Self::Verdict => widest(&|row| cells(&verdict(row))),
            Self::Progress | Self::Sparkline => u16::MAX,
            _ => self.least(),
        }
    }
}

/// Cells of `├─ `.
const BRANCH_CELLS: usize = 3;

fn is_tree(entries: &[Entry<'_>]) -> bool {
    matches!(entries.first(), Some(Entry::Machine { .. }))
}

/// The columns that have room in `width` cells, from left to right, with their widths.
fn columns(width: u16, entries: &[Entry<'_>]) -> Vec<(Column, u16)> {
    let tree = is_tree(entries);
    let least = |column: Column| match column {
        Column::Device if tree => column.least() + 3,
        _ => column.least(),
    };
    // One cell at the left for the marks.
    let mut free = width.saturating_sub(1);
    let mut chosen = Vec::new();
    for column in Column::BY_IMPORTANCE {
        let gap = u16::from(!chosen.is_empty());
        let needed = least(column) + gap;
        let redundant = tree && column == Column::Vm;
        if !redundant && (chosen.is_empty() || needed <= free) {
            free = free.saturating_sub(needed);
            chosen.push(column);
        }
    }
    let mut widths: Vec<(Column, u16)> = Column::ALL
        .into_iter()
        .filter(|column| chosen.contains(column))
        .map(|column| (column, least(column)))
        .collect();
    for (hungry, limit) in Column::BY_APPETITE {
        if let Some((_, width)) = widths.iter_mut().find(|(column, _)| *column == hungry) {
            let more = hungry.most(entries).min(limit).saturating_sub(*width).min(free);
            *width += more;
            free -= more;
        }
    }
    widths
}

pub(super) fn draw(model: &Model, theme: Theme, canvas: &mut Canvas<'_>) {
    let theme = Theme { stale: matches!(model.contact(), Contact::Gone { .. }), ..theme };
    let entries = model.entries();
    let columns = columns(canvas.width(), &entries);
    draw_heads(model, &columns, theme, canvas);
    if entries.is_empty() {
        canvas.text(1, 2, canvas.width(), &nothing(model), theme.dim());
        return;
    }
    let lines = usize::from(canvas.height().saturating_sub(1));
    let selected = entries.iter().position(|entry| match entry {
        Entry::Device { row, .. } => model.is_selected(row),
        Entry::Machine { .. } => false,
    });
    let last_first = entries.len().saturating_sub(lines);
    let first = selected.unwrap_or(0).saturating_sub(lines / 2).min(last_first);
    for (y, entry) in (1..canvas.height()).zip(entries.iter().skip(first)) {
        match entry {
            Entry::Machine { .. } => draw_machine(entry, y, theme, canvas),
            Entry::Device { row, last_of_machine } => {
                let marks = Marks {
                    selected: model.is_selected(row),
                    tagged: model.is_tagged(row),
                    last_of_machine: *last_of_machine,
                };
                draw_device(row, marks, y, &columns, theme, canvas);
            }
        }
    }
}

fn nothing(model: &Model) -> String {
    match model.contact() {
        Contact::Waiting => "waiting for the first answer …".into(),
        _ if !model.filter().is_empty() => {
            format!(
                "no device has \"{}\" in its line; Esc in the filter (/) clears it",
                model.filter()
            )
        }
        _ => {
            "no device has been seen yet: one appears when it is opened or changes its state".into()
        }
    }
}

fn draw_heads(model: &Model, columns: &[(Column, u16)], theme: Theme, canvas: &mut Canvas<'_>) {
    canvas.line_style(0, theme.bar());
    let Order { by, reversed } = model.order();
    let mut x = 1;
    for (column, width) in columns {
        let ordered = by == Some(*column);
        let style = if ordered { theme.bar_strong() } else { theme.bar() };
        let title = match (ordered, reversed) {
            (false, _) => column.title().to_owned(),
            (true, false) => format!("{}▾", column.title()),
            (true, true) => format!("{}▴", column.title()),
        };
        // The mark of the order may stand in the gap.
        let width_and_gap = width + u16::from(ordered && !column.is_right_aligned());
        if column.is_right_aligned() && cells(&title) <= usize::from(*width) {
            canvas.text_right(x, 0, *width, &title, style);
        } else if column.is_right_aligned() {
            canvas.text(x.saturating_sub(1), 0, width + 1, &title, style);
        } else {
            canvas.text(x, 0, width_and_gap, &title, style);
        }
        x += width + 1;
    }
}

fn draw_machine(entry: &Entry<'_>, y: u16, theme: Theme, canvas: &mut Canvas<'_>) {
    let Entry::Machine { pid, vm, devices, migration } = entry else {
        return;
    };
    let name = match (vm, pid) {
        (Some(vm), _) => printable(vm, 32),
        (None, Some(_)) => "machine without a name".into(),
        (None, None) => "no machine".into(),
    };
    let mut x = 1 + canvas.text(1, y, canvas.width(), &name, theme.strong());
    let mut more = String::new();
    if let Some(pid) = pid {
        more += &format!(" · pid {pid}");
    }
    more += &format!(" · {devices} device{}", if *devices == 1 { "" } else { "s" });
    x += canvas.text(x, y, canvas.width(), &more, theme.dim());
    if let Some(migration) = migration {
        let result =
            migration.result.as_deref().map_or("migrating".into(), |result| printable(result, 16));
        let down = migration.downtime_ns.filter(|_| migration.ran_before());
        let down = down.map(|ns| format!(", down {}", duration(ns)));
        let role = printable(&migration.role, 16);
        x += canvas.text(x, y, canvas.width(), " · ", theme.dim());
        let text = format!("{role} {result}{}", down.unwrap_or_default());
        canvas.text(x, y, canvas.width(), &text, theme.verdict(&result));
    }
}

#[derive(Clone, Copy)]
struct Marks {
    selected: bool,
    tagged: bool,
    last_of_machine: Option<bool>,
}

fn draw_device(
    row: &Row,
    marks: Marks,
    y: u16,
    columns: &[(Column, u16)],
    theme: Theme,
    canvas: &mut Canvas<'_>,
) {
    let mark = match (marks.tagged, marks.selected) {
        (true, _) => "*",
        (false, true) => "›",
        (false, false) => " ",
    };
    canvas.text(0, y, 1, mark, theme.strong());
    let mut x = 1;
    for (column, width) in columns {
        let mut start = x;
        let mut room = *width;
        if let (Column::Device, Some(last)) = (column, marks.last_of_machine) {
            let branch = if last { "└─ " } else { "├─ " };
            start += canvas.text(x, y, room, branch, theme.dim());
            room = room.saturating_sub(3);
        }
        let (text, style) = cell(row, *column, room, theme);
        if column.is_right_aligned() {
            canvas.text_right(start, y, room, &text, style);
        } else {
            canvas.text(start, y, room, &text, style);
        }
        x += width + 1;
    }
    if marks.selected {
        canvas.line_style(y, theme.selected());
    }
}

/// What a column says of a device.
fn cell(row: &Row, column: Column, width: u16, theme: Theme) -> (String, Style) {
    let wide = usize::from(width);
    let or_nothing = |text: Option<&str>| match text {
        Some(text) => (text.to_owned(), theme.data()),
        None => (NOTHING.to_owned(), theme.dim()),
    };
    match column {
        Column::Device => (middle_cut(&row.device.device, wide), theme.strong()),
        Column::Vm => match row.vm() {
            Some(vm) => (vm.to_owned(), theme.data()),
            None => (UNKNOWN.to_owned(), theme.dim()),
        },
        Column::Role => or_nothing(row.role().map(|role| match role {
            "source" if wide < 6 => "src",
            "destination" if wide < 11 => "dst",
            role => role,
        })),
        Column::Protocol => or_nothing(row.protocol()),
        Column::State => (row.state().to_owned(), theme.state(row.state())),
        Column::Time => known(row.in_state_ns.map(duration), theme),
        Column::Progress => match row.session {
            Some(_) => {
                let share = row.progress();
                let marks = bar(share, wide.saturating_sub(5));
                let style = if share.is_some() { theme.sent() } else { theme.dim() };
                (format!("{marks} {}", percent(share)), style)
            }
            None => or_nothing(None),
        },
        Column::Throughput => per_second(row, row.throughput, theme),
        Column::Dirty => per_second(row, row.dirty, theme),
        Column::Pending => match row.phase() {
            Phase::Idle => or_nothing(None),
            Phase::Migrating | Phase::Ended => known(row.pending_bytes().map(bytes), theme),
        },
        Column::Sparkline => (sparkline(&row.history, wide), theme.sent()),
        Column::Verdict => {
            let said = row.verdict().unwrap_or(UNKNOWN);
            let style = match row.phase() {
                _ if row.outlook.reason.is_some() => theme.verdict(said),
                Phase::Idle => theme.dim(),
                Phase::Migrating | Phase::Ended => theme.verdict(said),
            };
            (verdict(row), style)
        }
    }
}

fn known(text: Option<String>, theme: Theme) -> (String, Style) {
    match text {
        Some(text) => (text, theme.data()),
        None => (UNKNOWN.to_owned(), theme.dim()),
    }
}

/// A rate of a session that is under way; one that has ended has none any more.
fn per_second(row: &Row, rate: Option<Rate>, theme: Theme) -> (String, Style) {
    match row.phase() {
        Phase::Migrating => known(rate.map(|rate| bytes(whole(rate.bytes_per_second))), theme),
        Phase::Ended | Phase::Idle => (NOTHING.to_owned(), theme.dim()),
    }
}

/// `completed 257ms`, `not_converging: dirty_rate_above_throughput`, `?`.
fn verdict(row: &Row) -> String {
    let reason = row.outlook.reason.as_deref();
    match row.phase() {
        Phase::Idle => reason.unwrap_or(NOTHING).to_owned(),
        Phase::Ended => {
            let result = row.verdict().unwrap_or(UNKNOWN);
            match row.downtime_ns() {
                Some(ns) => format!("{result} {}", duration(ns)),
                None => result.to_owned(),
            }
        }
        Phase::Migrating => match (row.outlook.verdict.as_deref(), reason) {
            (Some(verdict), Some(reason)) => format!("{verdict}: {reason}"),
            (verdict, reason) => verdict.or(reason).unwrap_or(UNKNOWN).to_owned(),
        },
    }
}

/// A name whose ends tell it from others: it is cut in the middle.
fn middle_cut(name: &str, width: usize) -> String {
    let whole = printable(name, usize::MAX / 16);
    if cells(&whole) <= width || width < 5 {
        return whole;
    }
    let tail: Vec<char> = whole.chars().rev().take((width - 1) / 2).collect();
    let tail: String = tail.into_iter().rev().collect();
    // A wide character may leave a cell free.
    let head = printable(&whole, width.saturating_sub(cells(&tail)));
    format!("{head}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::{canned, model::Update};

    fn model() -> Model {
        let mut model = Model::new("a test");
        model.updated(Update { snapshot: canned::snapshot(), timeline: None });
        model
    }

    #[test]
    fn columns_go_one_by_one_and_never_overflow() {
        let model = model();
        let entries = model.entries();
        let mut before = 0;
        for width in 0..300 {
            let columns = columns(width, &entries);
            let used: u16 = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(columns.len() == 1 || used <= width, "{width}: {columns:?}");
            assert!(columns.len() + 1 >= before, "{width}");
            before = columns.len();
        }
        let shown = |width| {
            columns(width, &entries).into_iter().map(|(column, _)| column).collect::<Vec<_>>()
        };
        use Column::*;
        assert_eq!(shown(60), [Device, State, Time, Progress, Verdict]);
        assert_eq!(shown(80), [Device, Role, State, Time, Progress, Throughput, Pending, Verdict]);
        assert_eq!(shown(200), Column::ALL);
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        let uuid = "c0ffee00-1111-2222-3333-444455556666";
        assert_eq!(middle_cut(uuid, 12), "c0ffee…56666");
        assert_eq!(middle_cut(uuid, 40), uuid);
        assert_eq!(cells(&middle_cut("日本語日本語日本語", 12)), 11);
    }
}
