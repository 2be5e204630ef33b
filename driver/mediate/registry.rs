// SPDX-License-Identifier: GPL-2.0
//! Who is registered, and who must be waited for.
//!
//! The lock is held to look and to change, never while a provider is called: so a provider can take its time, and a device
//! can be opened while another is. What keeps a provider's code there meanwhile is a [`Hold`]: a reference to its module and a
//! share of its [`Presence`]. The registration has a share too; when it is over and the last hold is gone, so is the presence,
//! and the one who unregisters goes on.
//!
//! ```text
//!   PROVIDERS ── Registered ── Arc<Presence> ◀── Hold of an open device
//!                                   │        ◀── Hold of an open in progress
//!                                   └─ dropped: complete_all() ──▶ unregister() returns
//! ```

#![expect(unsafe_code, reason = "a lock that is a static must be initialised at run time")]

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc,
        Completion, //
    },
};

use super::Provider;
use crate::vendor::ModuleReference;

global_lock! {
    // SAFETY: `Module::init()` calls `init()` before it does anything else, and nobody can call this module before it is done.
    unsafe(uninit) static PROVIDERS: Mutex<Providers> = Providers { registered: KVec::new(), next_serial: 0 };
}

struct Providers {
    /// In the order of their registration.
    registered: KVec<Registered>,
    next_serial: u64,
}

struct Registered {
    key: Key,
    serial: u64,
    provider: Arc<dyn Provider>,
    presence: Arc<Presence>,
}

/// What tells a registration from the others: the address of what was registered.
///
/// Not the name: one whose name was refused, because somebody else has it, must not unregister that one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(usize);

impl Key {
    /// The key of what is at this address.
    pub(crate) fn of<T: ?Sized>(registered: *const T) -> Self {
        Self(registered.cast::<()>().addr())
    }
}

/// Shared by all who need the provider; its end is told.
struct Presence(Arc<Completion>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.complete_all();
    }
}

/// Keeps a provider's code where it is, and its unregistration from coming to an end.
pub(super) struct Hold {
    // The module's reference goes last: the provider's own code may run until then.
    _presence: Arc<Presence>,
    _module: ModuleReference,
}

/// A provider that may be asked.
pub(super) struct Candidate {
    /// Lower than that of any that registered later.
    pub(super) serial: u64,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) hold: Hold,
}

/// Makes the lock usable. Called once, before anything else here.
pub(super) fn init() {
    // SAFETY: A module is initialised once, and does nothing with the lock before this.
    unsafe { PROVIDERS.init() }
}

/// Adds a provider; it is asked before those that are there.
///
/// # Errors
///
/// `EINVAL` if the name is empty; `EEXIST` if the key or the name is taken; `ENOMEM`.
pub(crate) fn register(key: Key, provider: Arc<dyn Provider>) -> Result {
    if provider.name().is_empty() {
        return Err(EINVAL);
    }
    let presence = Presence(Arc::pin_init(Completion::new(), GFP_KERNEL)?);
    let presence = Arc::new(presence, GFP_KERNEL)?;
    let mut providers = PROVIDERS.lock();
    let taken = |it: &Registered| it.key == key || it.provider.name() == provider.name();
    if providers.registered.iter().any(taken) {
        return Err(EEXIST);
    }
    let serial = providers.next_serial;
    providers.registered.push(Registered { key, serial, provider, presence }, GFP_KERNEL)?;
    providers.next_serial += 1;
    Ok(())
}

/// Takes a provider away, and waits until no device is open with it.
///
/// The wait cannot be interrupted: the caller is about to free what the provider is made of, and has no way back.
pub(crate) fn unregister(key: Key) {
    let mut providers = PROVIDERS.lock();
    let Some(at) = providers.registered.iter().position(|it| it.key == key) else { return };
    let Ok(removed) = providers.registered.remove(at) else { return };
    if providers.registered.is_empty() {
        // A static is never dropped, so its memory goes here.
        providers.registered = KVec::new();
    }
    drop(providers);
    let gone = removed.presence.0.clone();
    drop(removed);
    gone.wait_for_completion();
}

/// The next provider to be asked: the last that registered before the one with this serial number, and whose module is not
/// going.
pub(super) fn candidate_before(serial: u64) -> Option<Candidate> {
    let providers = PROVIDERS.lock();
    providers.registered.iter().rev().filter(|it| it.serial < serial).find_map(|it| {
        let module = it.provider.module_reference()?;
        Some(Candidate {
            serial: it.serial,
            provider: it.provider.clone(),
            hold: Hold { _presence: it.presence.clone(), _module: module },
        })
    })
}

/// A registered provider of this driver's own; dropping it unregisters.
pub(super) struct Registration(Key);

impl Registration {
    /// Registers a provider.
    ///
    /// # Errors
    ///
    /// As for [`register`].
    pub(super) fn new(provider: Arc<dyn Provider>) -> Result<Self> {
        let key = Key::of(Arc::as_ptr(&provider));
        register(key, provider)?;
        Ok(Self(key))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        unregister(self.0);
    }
}
