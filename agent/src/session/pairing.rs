// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which source belongs to which destination, when both are on this host.
//!
//! Nothing in the kernel says that two devices are the two ends of one migration, and a guess would be shown as a downtime. So a
//! source and a destination are paired only if
//!
//! - both sessions completed, and they overlap in time: the one took state in while the other gave it away,
//! - the source had begun to stop before the destination ran, and has not run since,
//! - exactly as many bytes were put into the destination as were taken from the source, and at least one,
//! - neither fits another session as well, ended or under way.
//!
//! Either may end first. Two equal devices of one machine that move at the same time fit each other's counterparts; then the total
//! is unknown. Across hosts it always is: the two clocks and the two agents know nothing of each other.

use super::{End, Role, Session, Stamps};
use crate::device_key::DeviceKey;

/// Ended sessions that are kept because one under way may belong to them. More than a machine has devices.
const WAITING: usize = 64;

/// Ended sessions that wait for their other end.
#[derive(Debug, Default)]
pub struct Pairing {
    sources: Vec<Ended>,
    destinations: Vec<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    session: u64,
    device: DeviceKey,
    began_ns: u64,
    ended_ns: u64,
    /// A source's; a destination's is its end.
    stop_began_ns: u64,
    data_bytes: u64,
    stamps: Stamps,
}

/// The two ends of one migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The source's session.
    pub source: u64,
    /// The destination's session.
    pub destination: u64,
    /// From the beginning of the source's stop until the destination ran, in nanoseconds.
    pub total_ns: u64,
    /// From the source's last buffer until the write that starts the destination, in nanoseconds; unknown where the device had
    /// nothing left to give when it stood.
    pub transfer_gap_ns: Option<u64>,
}

impl Pairing {
    /// The device runs again, or was opened anew: what it gave away is of no use any more.
    pub fn runs(&mut self, device: DeviceKey) {
        self.sources.retain(|source| source.device != device);
    }

    /// Takes in a session that has ended, while others are under way. Gives the pairs that are certain now.
    pub fn ended<'a>(
        &mut self,
        session: &Session,
        under_way: impl Iterator<Item = &'a Session> + Clone,
    ) -> Vec<Pair> {
        if let Some(ended) = Ended::new(session) {
            let waiting = match session.role {
                Role::Source => &mut self.sources,
                Role::Destination => &mut self.destinations,
            };
            if waiting.len() == WAITING {
                waiting.remove(0);
            }
            waiting.push(ended);
        }
        let pairs = self.certain(under_way.clone());
        let paired = |ended: &Ended| {
            pairs.iter().any(|pair| [pair.source, pair.destination].contains(&ended.session))
        };
        self.sources.retain(|source| !paired(source));
        self.destinations.retain(|destination| !paired(destination));
        self.drop_the_hopeless(under_way);
        pairs
    }

    /// Drops what no session under way can give an other end to, neither directly nor by taking a rival away.
    fn drop_the_hopeless<'a>(&mut self, under_way: impl Iterator<Item = &'a Session> + Clone) {
        let open = |ended: &&Ended, role| under_way.clone().any(|other| ended.may_fit(role, other));
        let open_sources: Vec<_> =
            self.sources.iter().filter(|s| open(s, Role::Source)).copied().collect();
        let open_destinations: Vec<_> =
            self.destinations.iter().filter(|d| open(d, Role::Destination)).copied().collect();
        let is_in = |list: &[Ended], ended: &Ended| list.iter().any(|e| e.session == ended.session);
        self.sources.retain(|source| {
            is_in(&open_sources, source) || open_destinations.iter().any(|d| source.fits(d))
        });
        self.destinations.retain(|destination| {
            is_in(&open_destinations, destination)
                || open_sources.iter().any(|s| s.fits(destination))
        });
    }

    fn certain<'a>(&self, under_way: impl Iterator<Item = &'a Session> + Clone) -> Vec<Pair> {
        let is_open =
            |ended: &Ended, role| under_way.clone().any(|other| ended.may_fit(role, other));
        let pair = |source: &Ended| {
            let destination = only(self.destinations.iter().filter(|d| source.fits(d)))?;
            let back = only(self.sources.iter().filter(|s| s.fits(destination)))?;
            let certain = back.session == source.session
                && !is_open(source, Role::Source)
                && !is_open(destination, Role::Destination);
            certain.then(|| Pair {
                source: source.session,
                destination: destination.session,
                total_ns: destination.ended_ns.saturating_sub(source.stop_began_ns),
                transfer_gap_ns: source
                    .stamps
                    .last_buffer_ns
                    .zip(destination.stamps.start_began_ns)
                    .map(|(out_ns, start_ns)| start_ns.saturating_sub(out_ns)),
            })
        };
        self.sources.iter().filter_map(pair).collect()
    }
}

impl Ended {
    fn new(session: &Session) -> Option<Self> {
        let &(End::Completed, ended_ns) = session.end.as_ref()? else {
            return None;
        };
        Some(Self {
            session: session.id,
            device: session.device,
            began_ns: session.began_ns,
            ended_ns,
            stop_began_ns: match session.role {
                Role::Source => session.stop_began_ns()?,
                Role::Destination => ended_ns,
            },
            stamps: session.stamps(),
            data_bytes: session.figures().data_bytes.filter(|bytes| *bytes > 0)?,
        })
    }

    /// Whether this source and that destination can be the ends of one migration.
    fn fits(&self, destination: &Self) -> bool {
        self.device != destination.device
            && self.data_bytes == destination.data_bytes
            && self.began_ns <= destination.ended_ns
            && destination.began_ns <= self.ended_ns
            && self.stop_began_ns <= destination.ended_ns
    }

    /// Whether a session that is under way can still turn out to be the other end of this one, which has the role `role`.
    fn may_fit(&self, role: Role, other: &Session) -> bool {
        let overlaps = other.began_ns <= self.ended_ns;
        let stopped = match other.role {
            Role::Source => other.stop_began_ns().is_some_and(|began_ns| began_ns <= self.ended_ns),
            Role::Destination => true,
        };
        other.role != role && other.device != self.device && overlaps && stopped
    }
}

/// The only item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}
