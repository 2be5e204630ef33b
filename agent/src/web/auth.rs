// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `basic_auth_users`: passwords, by their bcrypt hashes.
//!
//! Verifying a password is slow on purpose, so it must not become a lever:
//!
//! - It is done beside the threads that serve, [`AT_A_TIME`], with [`WAITING`] more in line; who comes then is told to come back.
//! - What was verified is remembered, so that a scraper pays once. Only successes are: a client that tries passwords can neither fill
//!   the memory nor displace who is in it. Remembered is a keyed digest, so that the memory of the process has no list of
//!   passwords; the digest covers the hash, so a changed file forgets by itself.
//! - A user that does not exist costs what one that exists costs: the password is held against somebody's hash, of the
//!   highest cost of all, and the answer is thrown away.

use super::config::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use std::{
    collections::{BTreeMap, HashSet},
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Passwords that are verified at a time. One, as in exporter-toolkit: it takes a whole CPU.
const AT_A_TIME: usize = 1;
/// Passwords that wait to be verified.
const WAITING: usize = 32;
/// Verified passwords that are remembered, as many as exporter-toolkit remembers.
const REMEMBERED: usize = 100;
/// Costs that are taken: 2^4 rounds are bcrypt's least; 2^16 take seconds, and each is a second that others wait.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
/// Length of what is looked at of a header: bcrypt takes 72 bytes of a password, so far longer is no password.
const HEADER_BYTES: usize = 1024;

/// Who may ask, by the hash of the password. Nobody listed: everybody may.
#[derive(Clone, Debug, Default)]
pub struct Users {
    hashes: BTreeMap<String, Secret>,
    /// What an unknown user's password is held against.
    decoy: Secret,
}

/// A user whose hash cannot be used. The hash is not shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No bcrypt hash.
    #[error(
        "the user {0:?} of basic_auth_users has no bcrypt hash; make one with: htpasswd -nBC 10 ''"
    )]
    NoHash(String),
    /// So costly that it could be used to keep the agent busy, or so cheap that it is none.
    #[error(
        "the hash of the user {user:?} of basic_auth_users has the cost {cost}; make one of cost 4 to 16, 10 is usual"
    )]
    Cost {
        /// Whose.
        user: String,
        /// The binary logarithm of the rounds.
        cost: u32,
    },
}

impl Users {
    /// Takes the users of the file.
    ///
    /// # Errors
    ///
    /// [`UserError`].
    pub fn new(hashes: BTreeMap<String, Secret>) -> Result<Self, UserError> {
        let mut decoy = (0, Secret::default());
        for (user, hash) in &hashes {
            let cost = bcrypt::HashParts::from_str(hash.reveal())
                // Its error would show what it got.
                .map_err(|_hidden| UserError::NoHash(user.clone()))?
                .get_cost();
            if !COSTS.contains(&cost) {
                return Err(UserError::Cost { user: user.clone(), cost });
            }
            if cost > decoy.0 {
                decoy = (cost, hash.clone());
            }
        }
        Ok(Self { hashes, decoy: decoy.1 })
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// What a password was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the user's.
    Right,
    /// It is not, or there is none, or no such user.
    Wrong,
    /// Too many are being verified.
    Busy,
}

/// Verifies passwords, and remembers.
pub struct Verifier {
    key: hmac::Key,
    verified: Mutex<HashSet<[u8; 32]>>,
    line: Arc<Semaphore>,
    at_work: Arc<Semaphore>,
}

impl Verifier {
    /// One that remembers nothing.
    ///
    /// # Panics
    ///
    /// When the kernel gives no random bytes, which it does from its start on.
    pub fn new() -> Self {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).expect("the kernel has random bytes");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            verified: Mutex::default(),
            line: Arc::new(Semaphore::new(AT_A_TIME + WAITING)),
            at_work: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Judges the header `Authorization` of a request.
    pub async fn judge(&self, users: &Users, header: Option<&[u8]>) -> Verdict {
        let Some((user, password)) = header.and_then(credentials) else {
            return Verdict::Wrong;
        };
        let known = users.hashes.get(&user);
        let hash = known.unwrap_or(&users.decoy).clone();
        let digest = self.digest(&user, &hash, &password);
        if known.is_some() && self.remembered().contains(&digest) {
            return Verdict::Right;
        }
        let Ok(place) = Arc::clone(&self.line).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let Ok(turn) = Arc::clone(&self.at_work).acquire_owned().await else {
            return Verdict::Busy;
        };
        let verified = spawn_blocking(move || {
            // They go when the work is done, even if the client has long gone and nobody waits for the answer.
            let _held = (place, turn);
            bcrypt::verify(password, hash.reveal()).unwrap_or(false)
        });
        if !verified.await.unwrap_or(false) || known.is_none() {
            return Verdict::Wrong;
        }
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            // Rare: it takes as many users. All of them verify once more.
            remembered.clear();
        }
        remembered.insert(digest);
        Verdict::Right
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, user: &str, hash: &Secret, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.reveal().as_bytes(), password] {
            // With its length before it no part can pass for a piece of another.
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// User and password of a header `Basic …` (RFC 7617).
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    if header.len() > HEADER_BYTES {
        return None;
    }
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn users(list: &[(&str, &str)]) -> Users {
        let hash = |password: &str| bcrypt::hash(password, 4).expect("hashed");
        let yaml: String =
            list.iter().map(|(user, password)| format!("  {user}: {}\n", hash(password))).collect();
        let file =
            super::super::config::parse(&format!("basic_auth_users:\n{yaml}")).expect("valid");
        Users::new(file.basic_auth_users).expect("hashes")
    }

    fn basic(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into()
    }

    #[tokio::test]
    async fn the_right_password_is_right_each_time_and_no_other_ever() {
        let users = users(&[("alice", "open"), ("bob", "sesame")]);
        let verifier = Verifier::new();
        for _ in 0..2 {
            assert_eq!(verifier.judge(&users, Some(&basic("alice", "open"))).await, Verdict::Right);
            for (user, password) in
                [("alice", "sesame"), ("alice", ""), ("", "open"), ("carol", "sesame")]
            {
                let verdict = verifier.judge(&users, Some(&basic(user, password))).await;
                assert_eq!(verdict, Verdict::Wrong, "{user} {password}");
            }
        }
        assert_eq!(verifier.remembered().len(), 1, "failures are not remembered");
        assert_eq!(verifier.judge(&users, None).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_remembered_password_is_forgotten_with_its_hash() {
        let verifier = Verifier::new();
        let header = basic("alice", "open");
        let before = users(&[("alice", "open")]);
        assert_eq!(verifier.judge(&before, Some(&header)).await, Verdict::Right);
        let changed = users(&[("alice", "shut")]);
        assert_eq!(verifier.judge(&changed, Some(&header)).await, Verdict::Wrong);
        let removed = users(&[("bob", "open")]);
        assert_eq!(verifier.judge(&removed, Some(&header)).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn an_unknown_user_with_the_decoys_password_is_wrong() {
        let users = users(&[("alice", "open")]);
        let verifier = Verifier::new();
        assert_eq!(verifier.judge(&users, Some(&basic("nobody", "open"))).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn who_is_in_line_is_bounded_and_who_is_known_passes_it() {
        let users = users(&[("alice", "open")]);
        let verifier = Arc::new(Verifier::new());
        let right = basic("alice", "open");
        assert_eq!(verifier.judge(&users, Some(&right)).await, Verdict::Right);
        let _at_work = Arc::clone(&verifier.at_work).acquire_owned().await.expect("open");
        let mut waiting = Vec::new();
        for _ in 0..AT_A_TIME + WAITING {
            let (verifier, users) = (Arc::clone(&verifier), users.clone());
            waiting.push(tokio::spawn(async move {
                verifier.judge(&users, Some(&basic("alice", "guess"))).await
            }));
        }
        while verifier.line.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(verifier.judge(&users, Some(&basic("alice", "no"))).await, Verdict::Busy);
        assert_eq!(verifier.judge(&users, Some(&right)).await, Verdict::Right);
        for task in waiting {
            task.abort();
        }
    }

    #[test]
    fn a_hash_that_is_none_or_too_costly_is_refused_without_showing_it() {
        let with = |hash: &str| {
            let text = format!("basic_auth_users:\n  alice: \"{hash}\"\n");
            Users::new(super::super::config::parse(&text).expect("valid").basic_auth_users)
        };
        let plain = with("hunter2").expect_err("no hash");
        assert!(plain.to_string().contains("alice") && !plain.to_string().contains("hunter2"));
        let costly = "$2y$31$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
        let refused = with(costly).expect_err("too costly");
        assert_eq!(refused, UserError::Cost { user: "alice".into(), cost: 31 });
        // htpasswd writes 2y, most libraries 2b or 2a.
        for prefix in ["2y", "2b", "2a"] {
            let hash = bcrypt::hash("open", 4).expect("hashed").replacen("2b", prefix, 1);
            assert!(with(&hash).is_ok(), "{prefix}");
        }
    }

    #[test]
    fn a_header_is_read_as_the_standard_says() {
        assert_eq!(credentials(b"basic YTpiOmM="), Some(("a".into(), b"b:c".to_vec())));
        for wrong in [&b"Bearer YTpi"[..], b"Basic", b"Basic !", b"Basic YQ==", b""] {
            assert_eq!(credentials(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = credentials(&header);
            let _ = credentials(&[b"Basic ", &header[..]].concat());
        }
    }
}
