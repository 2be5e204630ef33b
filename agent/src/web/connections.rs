// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connections that are open, of which there are never more than [`MAX`].
//!
//! To refuse who comes when all are taken would let one client shut out all others: it opens as many as there are and says nothing.
//! So a new one always gets in, and the one that has been idle for longest gives way; when none is idle, the oldest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;
use tracing::debug;

/// Connections at a time. Prometheus takes one, a page in a browser a few.
pub const MAX: usize = 512;

/// All connections.
#[derive(Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Counts what happens, to tell what was before what.
    clock: AtomicU64,
}

/// One connection.
#[derive(Default)]
pub struct Connection {
    requests: AtomicUsize,
    /// When the last request began or ended, by [`Connections::clock`].
    last: AtomicU64,
    cut: Notify,
}

/// A place among the connections, given back when it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
    connection: Arc<Connection>,
}

/// A request that is being answered; until then its connection is not idle.
pub struct Busy {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Connections {
    /// A place for a new connection. It may cost another one its own.
    pub fn enter(self: &Arc<Self>) -> Place {
        let connection = Arc::new(Connection::default());
        connection.last.store(self.tick(), Relaxed);
        let id = self.next.fetch_add(1, Relaxed);
        let mut open = self.open();
        if open.len() >= MAX {
            let rank = |connection: &Connection| {
                (connection.requests.load(Relaxed) > 0, connection.last.load(Relaxed))
            };
            let least = open.iter().min_by_key(|(_, connection)| rank(connection));
            if let Some(victim) = least.map(|(id, _)| *id)
                && let Some(connection) = open.remove(&victim)
            {
                debug!("too many connections: the one that was idle for longest is cut");
                connection.cut.notify_one();
            }
        }
        open.insert(id, Arc::clone(&connection));
        Place { connections: Arc::clone(self), id, connection }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}

impl Place {
    /// Ends when the connection has to give way.
    pub async fn cut(&self) {
        self.connection.cut.notified().await;
    }

    /// A request begins.
    pub fn request(&self) -> Busy {
        self.connection.requests.fetch_add(1, Relaxed);
        self.connection.last.store(self.connections.tick(), Relaxed);
        Busy {
            connections: Arc::clone(&self.connections),
            connection: Arc::clone(&self.connection),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(&self.id);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connection.requests.fetch_sub(1, Relaxed);
        self.connection.last.store(self.connections.tick(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::pin, task::Context, task::Waker};

    fn is_cut(place: &Place) -> bool {
        pin!(place.cut()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_one_that_was_idle_for_longest_gives_way_and_busy_ones_stay() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX).map(|_| connections.enter()).collect();
        let busy = places[0].request();
        drop(places[1].request());
        let one_more = connections.enter();
        assert_eq!(connections.count(), MAX);
        assert!(is_cut(&places[2]), "the oldest that never asked");
        assert!(![&places[0], &places[1], &one_more].into_iter().any(is_cut));
        let _another = connections.enter();
        assert!(is_cut(&places[3]));
        drop(busy);
    }

    #[test]
    fn when_all_are_busy_the_oldest_gives_way() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX).map(|_| connections.enter()).collect();
        let _busy: Vec<_> = places.iter().rev().map(Place::request).collect();
        let _one_more = connections.enter();
        assert!(is_cut(&places[MAX - 1]));
        assert!(!is_cut(&places[0]));
    }

    #[test]
    fn a_place_is_given_back() {
        let connections = Arc::new(Connections::default());
        drop(connections.enter());
        assert_eq!(connections.count(), 0);
    }
}
