// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `rust/kernel/rbtree.rs`: an ordered map with cursors.

use std::collections::BTreeMap;

use crate::allocator::allocate;
use crate::prelude::{Flags, Result};

/// An ordered map whose growth can fail.
#[derive(Debug, Default)]
pub struct RBTree<K, V>(BTreeMap<K, V>);

impl<K: Ord + Copy, V> RBTree<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// Puts a value in and gives the one that was there.
    ///
    /// # Errors
    ///
    /// [`AllocError`](crate::prelude::AllocError); the map is as it was.
    pub fn try_create_and_insert(&mut self, key: K, value: V, _flags: Flags) -> Result<Option<V>> {
        allocate()?;
        Ok(self.0.insert(key, value))
    }

    /// A cursor on the first key that is not below `key`.
    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        self.0.range(*key..).next().map(|(key, value)| Cursor { key, value })
    }

    /// The same, to change or to remove what it is on.
    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let key = *self.0.range(*key..).next()?.0;
        Some(CursorMut { tree: self, key })
    }
}

/// A place in the map.
#[derive(Debug)]
pub struct Cursor<'a, K, V> {
    key: &'a K,
    value: &'a V,
}

impl<'a, K, V> Cursor<'a, K, V> {
    /// Key and value.
    pub fn current(&self) -> (&'a K, &'a V) {
        (self.key, self.value)
    }
}

/// A place in the map, to be changed.
#[derive(Debug)]
pub struct CursorMut<'a, K, V> {
    tree: &'a mut RBTree<K, V>,
    key: K,
}

impl<K: Ord + Copy, V> CursorMut<'_, K, V> {
    /// Key and value.
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        let value = self.tree.0.get_mut(&self.key).expect("nobody else removes it meanwhile");
        (&self.key, value)
    }

    /// Removes it.
    pub fn remove_current(self) {
        self.tree.0.remove(&self.key);
    }
}
