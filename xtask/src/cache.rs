// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is expensive to make, kept in the user's cache folder and never used half made.
//!
//! ```text
//! ~/.cache/migscope/
//!   NAME-DIGEST/          a finished entry; DIGEST is over everything that went into it
//!   NAME-DIGEST.partial/  being made, renamed in place when finished
//!   NAME-DIGEST.lock      held (flock) while the entry is made
//! ```
//!
//! Two kinds of entries. [`Cache::make`] works in a temporary sibling and renames it: a reader sees
//! all of it or nothing, and an interrupted attempt starts anew. [`Cache::make_in_place`] is for the
//! kernel, whose build tree holds its own absolute path (kbuild writes the O= folder into the
//! Makefiles and dependency files it generates) and would be broken by a rename; it is built where it
//! stays, and only the stamp file, written last, makes it an entry. That also lets an interrupted
//! build resume, as `make` itself does.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// In an entry made in place: written first, tells it from one that was renamed.
const IN_PLACE: &str = ".in-place";
/// In an entry made in place: written last, holds the inputs in clear.
const STAMP: &str = ".complete";
/// Enough of the digest to be unique among one user's entries, short enough to read.
const DIGEST_BYTES: usize = 6;

/// Everything that goes into an entry, as `name: value` lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an input. The value's length goes in too, so that no two lists of inputs read alike.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        self.0.push_str(&format!("{name} ({} bytes): {value}\n", value.len()));
        self
    }

    pub(crate) fn digest(&self) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The cache folder.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/migscope`, or `~/.cache/migscope`.
    pub(crate) fn of_user() -> Result<Self> {
        let base = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // The XDG specification: a relative path is invalid and to be ignored.
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME says where a cache can be; set one")?;
        Self::at(base.join("migscope"))
    }

    /// A cache in a folder, which is made if it is not there.
    pub(crate) fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root)
            .with_context(|| format!("failed to make the cache folder {}", root.display()))?;
        // Kernel build trees keep absolute paths; a symbolic link in ours would make them differ.
        let root = root.canonicalize().context("failed to resolve the cache folder")?;
        Ok(Self { root })
    }

    /// The entry's folder, made by `make` if it is not there. `make` fills the folder it is given.
    pub(crate) fn make(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.entry(name, key);
        self.once(name, &entry, Path::is_dir, || {
            // Whoever made this folder is gone: we hold its lock.
            let partial = with_suffix(&entry, ".partial");
            remove_tree(&partial)?;
            fs::create_dir(&partial)
                .with_context(|| format!("failed to make {}", partial.display()))?;
            make(&partial)?;
            fs::rename(&partial, &entry)
                .with_context(|| format!("failed to put {} in its place", entry.display()))
        })?;
        Ok(entry)
    }

    /// The entry's folder, where `make` works in place; see the module's head. Called again on what an
    /// interrupted run left, `make` has to carry on from there.
    pub(crate) fn make_in_place(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.entry(name, key);
        let stamp = entry.join(STAMP);
        self.once(
            name,
            &entry,
            |_| stamp.is_file(),
            || {
                fs::create_dir_all(&entry)
                    .and_then(|()| fs::write(entry.join(IN_PLACE), ""))
                    .with_context(|| format!("failed to make {}", entry.display()))?;
                make(&entry)?;
                // Written aside and renamed, so that a full disk leaves no stamp rather than an empty one.
                let aside = entry.join(".complete.partial");
                fs::write(&aside, &key.0)
                    .and_then(|()| fs::rename(&aside, &stamp))
                    .with_context(|| format!("failed to mark {} as complete", entry.display()))
            },
        )?;
        Ok(entry)
    }

    /// Makes what is not there, under the entry's lock: whoever waited for the lock finds what another has made meanwhile.
    fn once(
        &self,
        name: &str,
        entry: &Path,
        is_there: impl Fn(&Path) -> bool,
        make: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if is_there(entry) {
            return Ok(());
        }
        let _lock = self.lock(entry)?;
        if is_there(entry) {
            return Ok(());
        }
        self.sweep(name, entry)?;
        make()
    }

    fn entry(&self, name: &str, key: &Key) -> PathBuf {
        self.root.join(format!("{name}-{}", key.digest()))
    }

    fn lock(&self, entry: &Path) -> Result<File> {
        let path = with_suffix(entry, ".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another xtask that is making {}", entry.display());
                file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", path.display()));
            }
        }
        Ok(file)
    }

    /// Removes what interrupted runs left of other entries of this name. Entries that another xtask
    /// works on are locked and stay.
    fn sweep(&self, name: &str, current: &Path) -> Result<()> {
        let listing = fs::read_dir(&self.root)
            .with_context(|| format!("failed to list {}", self.root.display()))?;
        for item in listing {
            let path = item.context("failed to list the cache folder")?.path();
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let stem = file_name.strip_suffix(".partial").unwrap_or(file_name);
            let Some(digest) = stem.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'))
            else {
                continue;
            };
            // A longer name that starts like ours is somebody else's.
            let ours = digest.len() == 2 * DIGEST_BYTES
                && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            let entry = self.root.join(stem);
            if !ours || !path.is_dir() || entry == current {
                continue;
            }
            let unfinished = stem != file_name || is_unfinished_in_place(&path);
            if !unfinished {
                continue;
            }
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(with_suffix(&entry, ".lock"))
                .context("failed to open a lock file")?;
            if lock.try_lock().is_ok() {
                eprintln!("removing {}, left by an interrupted run", path.display());
                remove_tree(&path)?;
            }
        }
        Ok(())
    }
}

fn is_unfinished_in_place(path: &Path) -> bool {
    path.join(IN_PLACE).is_file() && !path.join(STAMP).is_file()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    fn fill(text: &str) -> impl FnOnce(&Path) -> Result<()> {
        move |dir| Ok(fs::write(dir.join("file"), text)?)
    }

    #[test]
    fn a_finished_entry_is_made_once() {
        let (_dir, cache) = scratch();
        let key = Key::new().with("version", "1");
        let entry = cache.make("tool", &key, fill("first")).unwrap();
        assert_eq!(cache.make("tool", &key, fill("second")).unwrap(), entry);
        assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "first");
    }

    #[test]
    fn another_input_is_another_entry() {
        let (_dir, cache) = scratch();
        let one = cache.make("tool", &Key::new().with("a", "x").with("b", ""), fill("1")).unwrap();
        let two = cache.make("tool", &Key::new().with("a", "").with("b", "x"), fill("2")).unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn a_half_made_entry_is_never_used() {
        let (_dir, cache) = scratch();
        let key = Key::new().with("version", "1");
        let failed = cache.make("tool", &key, |dir| {
            fs::write(dir.join("half"), "")?;
            anyhow::bail!("interrupted")
        });
        assert_eq!(failed.unwrap_err().to_string(), "interrupted");
        let entry = cache.make("tool", &key, fill("whole")).unwrap();
        assert!(!entry.join("half").exists(), "the new attempt starts from an empty folder");
        assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "whole");
    }

    #[test]
    fn an_entry_in_place_counts_only_with_its_stamp_and_resumes() {
        let (_dir, cache) = scratch();
        let key = Key::new().with("version", "1");
        cache
            .make_in_place("kernel", &key, |dir| {
                fs::write(dir.join("step 1"), "")?;
                anyhow::bail!("interrupted")
            })
            .unwrap_err();
        let mut resumed = false;
        let entry = cache
            .make_in_place("kernel", &key, |dir| {
                resumed = dir.join("step 1").is_file();
                Ok(())
            })
            .unwrap();
        assert!(resumed, "what was done before the interruption is still there");
        cache.make_in_place("kernel", &key, |_| panic!("{} is complete", entry.display())).unwrap();
    }

    #[test]
    fn leftovers_of_other_keys_go_unless_somebody_works_on_them() {
        let (_dir, cache) = scratch();
        let key = |version: &str| Key::new().with("version", version);
        let finished = cache.make_in_place("kernel", &key("done"), |_| Ok(())).unwrap();
        let mut left = Vec::new();
        for version in ["dead", "busy"] {
            cache
                .make_in_place("kernel", &key(version), |dir| {
                    left.push(dir.to_owned());
                    anyhow::bail!("interrupted")
                })
                .unwrap_err();
        }
        // The second attempt swept the first one's leftovers; now somebody works on the second.
        assert!(!left[0].exists());
        let _busy = cache.lock(&left[1]).unwrap();
        cache.make_in_place("kernel", &key("new"), |_| Ok(())).unwrap();
        assert!(left[1].exists());
        assert!(finished.exists());
    }

    #[test]
    fn two_makers_of_one_entry_take_turns() {
        let (_dir, cache) = scratch();
        let key = Key::new().with("version", "1");
        let made = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache
                        .make("tool", &key, |dir| {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(50));
                            fill("whole")(dir)
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
