// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a destination takes in. "For user application, data is opaque": so the model does not read images either. It knows those
//! that were saved to their end, by their bytes, and what follows from comparing with them.

use std::fmt;
use std::sync::Arc;

use migscope_abi::rule::Rule;

use super::edu::Edu;
use super::{errno, expected};
use crate::call::Outcome;

/// The most bytes of a window that the model keeps; longer images are not compared.
pub(super) const KEPT: usize = 8192;

/// An image that was saved to its end.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) bytes: Arc<Vec<u8>>,
    /// The registers that it holds.
    pub(super) edu: Edu,
}

/// What is known of the first bytes of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Window(Arc<Vec<Option<u8>>>);

impl Window {
    /// These bytes stand at `at` now.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        let Ok(at) = usize::try_from(at) else { return };
        let known = Arc::make_mut(&mut self.0);
        let end = at.saturating_add(bytes.len()).min(KEPT);
        if known.len() < end {
            known.resize(end, None);
        }
        for (slot, byte) in known.iter_mut().skip(at).zip(bytes) {
            *slot = Some(*byte);
        }
    }

    /// Whether `bytes` may stand at `at`.
    pub(super) fn agrees(&self, at: u64, bytes: &[u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return true };
        self.0.iter().skip(at).zip(bytes).all(|(known, byte)| known.is_none_or(|it| it == *byte))
    }

    /// The first `length` bytes, if all are known.
    pub(super) fn known(&self, length: u64) -> Option<Vec<u8>> {
        self.0.get(..usize::try_from(length).ok()?)?.iter().copied().collect()
    }
}

/// A session of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Resuming {
    window: Window,
    /// All that was taken in; `None` if some of it is not known.
    fed: Option<Arc<Vec<u8>>>,
}

impl Default for Resuming {
    fn default() -> Self {
        Self { window: Window::default(), fed: Some(Arc::default()) }
    }
}

impl Resuming {
    /// The window holds one does not know what.
    pub(super) fn overwritten(&self) -> Self {
        Self { window: Window::default(), ..self.clone() }
    }

    pub(super) fn data_written(&self, at: u64, data: &[u8]) -> Self {
        let mut next = self.clone();
        next.window.put(at, data);
        next
    }

    /// `data_size` is written: `bytes` bytes of the window are the next piece of the image.
    pub(super) fn size_written(
        &self,
        bytes: u64,
        window: u64,
        images: &[Arc<Image>],
        outcome: &Outcome,
    ) -> Result<Self, String> {
        let refused = |rules: &[Rule]| {
            let errnos: Vec<i32> = rules.iter().map(|rule| errno(*rule)).collect();
            match outcome {
                Outcome::Failed(got) if errnos.contains(got) => Ok(self.clone()),
                _ => Err(expected(format_args!("one of the errnos {errnos:?}"), outcome)),
            }
        };
        if bytes > window {
            return refused(&[Rule::DataSize]);
        }
        let taken = matches!(outcome, Outcome::Done { value: 8, .. });
        if bytes == 0 {
            return if taken { Ok(self.clone()) } else { Err(expected("0x8", outcome)) };
        }
        // ENODATA, too: an image can say by its end that something is missing before it.
        let any = &[Rule::ImageRecord, Rule::ImageChecksum, Rule::ImageIncomplete];
        let all = match (&self.fed, self.window.known(bytes)) {
            (Some(fed), Some(piece)) => [fed.as_slice(), &piece].concat(),
            _ if taken => return Ok(Self { fed: None, ..self.clone() }),
            _ => return refused(any),
        };
        let fed = |fed: Option<Arc<Vec<u8>>>| Ok(Self { fed, ..self.clone() });
        if images.iter().any(|image| image.bytes.starts_with(&all)) {
            return if taken {
                fed(Some(Arc::new(all)))
            } else {
                Err(expected("0x8, for this is how a saved image goes on", outcome))
            };
        }
        let ended = |image: &Arc<Image>| all.starts_with(&image.bytes);
        let damaged = |image: &Arc<Image>| {
            let differ = image.bytes.iter().zip(&all).filter(|(one, other)| one != other).count();
            image.bytes.len() == all.len() && differ == 1
        };
        if taken && images.iter().any(|image| ended(image) || damaged(image)) {
            return Err(
                "an image was taken that is longer than it should be, or damaged".to_owned()
            );
        }
        if taken { fed(Some(Arc::new(all))) } else { refused(any) }
    }

    /// The image that has come: `None` if one cannot know, `Some(None)` if none has, or not all of it.
    pub(super) fn complete<'a>(&self, images: &'a [Arc<Image>]) -> Option<Option<&'a Arc<Image>>> {
        let fed = self.fed.as_ref()?;
        let whole = images.iter().find(|image| image.bytes == *fed);
        let begun = images.iter().any(|image| image.bytes.starts_with(fed));
        (whole.is_some() || begun || fed.is_empty()).then_some(whole)
    }
}

impl fmt::Display for Resuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fed {
            Some(fed) => write!(f, "resuming: {} bytes taken in", fed.len()),
            None => write!(f, "resuming: one does not know what was taken in"),
        }
    }
}
