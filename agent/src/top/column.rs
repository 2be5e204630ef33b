// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is shown of a device, column by column, and the order of the lines: by a column, or by what goes on.

use super::{rate::Rate, row::Row};
use std::cmp::Ordering;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The device's name.
    Device,
    /// The machine's name.
    Vm,
    /// The role in the session.
    Role,
    /// The protocol.
    Protocol,
    /// The state.
    State,
    /// Time in that state.
    Time,
    /// Share of the data that has moved.
    Progress,
    /// Device data per second.
    Throughput,
    /// Dirty memory per second.
    Dirty,
    /// Bytes pending.
    Pending,
    /// Device data per second, as it was before.
    Sparkline,
    /// Verdict or result.
    Verdict,
}

impl Column {
    /// From left to right.
    pub const ALL: [Self; 12] = [
        Self::Device,
        Self::Vm,
        Self::Role,
        Self::Protocol,
        Self::State,
        Self::Time,
        Self::Progress,
        Self::Throughput,
        Self::Dirty,
        Self::Pending,
        Self::Sparkline,
        Self::Verdict,
    ];

    /// Whether the largest is of interest first.
    fn largest_first(self) -> bool {
        matches!(self, Self::Time | Self::Progress | Self::Throughput | Self::Dirty | Self::Pending)
    }

    /// What is unknown comes last, either way.
    fn compare(self, a: &Row, b: &Row, reversed: bool) -> Ordering {
        let down = self.largest_first() != reversed;
        match self {
            Self::Device => {
                let (a, b) = (&a.device.device, &b.device.device);
                unknown_last(Some(a), Some(b), down, Ord::cmp)
            }
            Self::Vm => unknown_last(a.vm(), b.vm(), down, Ord::cmp),
            Self::Role => unknown_last(a.role(), b.role(), down, Ord::cmp),
            Self::Protocol => unknown_last(a.protocol(), b.protocol(), down, Ord::cmp),
            Self::State => {
                let (a, b) = (a.device.state.as_deref(), b.device.state.as_deref());
                unknown_last(a, b, down, Ord::cmp)
            }
            Self::Time => unknown_last(a.in_state_ns, b.in_state_ns, down, Ord::cmp),
            Self::Progress => unknown_last(a.progress(), b.progress(), down, f64::total_cmp),
            // The newest of the sparkline is the rate.
            Self::Throughput | Self::Sparkline => by_rate(a.throughput, b.throughput, down),
            Self::Dirty => by_rate(a.dirty, b.dirty, down),
            Self::Pending => unknown_last(a.pending_bytes(), b.pending_bytes(), down, Ord::cmp),
            Self::Verdict => unknown_last(a.verdict(), b.verdict(), down, Ord::cmp),
        }
    }
}

/// The order of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The column; `None`: what migrates first, then what has, then the rest.
    pub by: Option<Column>,
    /// Whether it is the other way round.
    pub reversed: bool,
}

impl Order {
    /// The order by the next column, or the one before; behind the last and before the first comes the order by activity. The
    /// sparkline is left out: its order is that of the rate beside it.
    #[must_use]
    pub fn step(self, forward: bool) -> Self {
        let columns = Column::ALL.into_iter().filter(|column| *column != Column::Sparkline);
        let mut orders: Vec<_> = std::iter::once(None).chain(columns.map(Some)).collect();
        if !forward {
            orders.reverse();
        }
        let after = orders.iter().cycle().skip_while(|by| **by != self.by).nth(1);
        Self { by: after.copied().flatten(), reversed: false }
    }

    /// The order of two lines. Equals are ordered by name, so that no line jumps.
    pub fn compare(self, a: &Row, b: &Row) -> Ordering {
        let order = match self.by {
            Some(column) => column.compare(a, b, self.reversed),
            None if self.reversed => b.phase().cmp(&a.phase()),
            None => a.phase().cmp(&b.phase()),
        };
        order.then_with(|| a.device.device.cmp(&b.device.device))
    }
}

fn by_rate(a: Option<Rate>, b: Option<Rate>, down: bool) -> Ordering {
    let speed = |rate: Option<Rate>| rate.map(|rate| rate.bytes_per_second);
    unknown_last(speed(a), speed(b), down, f64::total_cmp)
}

fn unknown_last<T>(
    a: Option<T>,
    b: Option<T>,
    down: bool,
    order: fn(&T, &T) -> Ordering,
) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if down => order(&b, &a),
        (Some(a), Some(b)) => order(&a, &b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::canned;

    #[test]
    fn what_is_unknown_comes_last_in_either_direction() {
        let known = canned::row();
        let mut unknown = canned::row();
        unknown.device.device = "0000:00:01.0".into();
        unknown.in_state_ns = None;
        for reversed in [false, true] {
            let order = Order { by: Some(Column::Time), reversed };
            assert_eq!(order.compare(&known, &unknown), Ordering::Less);
        }
    }

    #[test]
    fn the_steps_go_through_all_orders_and_back() {
        let mut order = Order::default();
        let mut seen = Vec::new();
        loop {
            seen.push(order.by);
            assert_eq!(order.step(true).step(false), order);
            order = order.step(true);
            if order == Order::default() {
                break;
            }
        }
        // By activity comes in addition, the sparkline is left out.
        assert_eq!(seen.len(), Column::ALL.len());
        assert_eq!(Order::default().step(false).by, Some(Column::Verdict));
    }
}
