// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Accesses to the migration region: what each field answers, and what it does.

use std::sync::Arc;

use migscope_abi::region::{Field, Op};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

use super::edu::Edu;
use super::image::{Image, Resuming};
use super::saving::Saving;
use super::{IMAGES, Model, Session, Setup, Verdict, errno, expected};
use crate::call::{Outcome, Pointer, register};

impl Model {
    /// An access to the migration region.
    #[expect(clippy::too_many_arguments, reason = "they are the access")]
    pub(super) fn migration(
        &self,
        setup: &Setup,
        op: Op,
        offset: u64,
        bytes: usize,
        data: &[u8],
        pointer: Pointer,
        outcome: &Outcome,
    ) -> Verdict {
        let length = u64::try_from(bytes).unwrap_or(u64::MAX);
        let place = match setup.layout.locate(offset, length, op) {
            Ok(place) => place,
            Err(rule) => return self.refuses(rule, outcome),
        };
        if pointer != Pointer::Good {
            return self.bad_pointer(setup, op, place.field, outcome);
        }
        // An access is done as a whole or not at all.
        if let Outcome::Done { value, .. } = outcome
            && *value != length
        {
            return Err(expected(format_args!("{length:#x}, or an errno"), outcome));
        }
        match (op, place.field) {
            (Op::Read, Field::Data) => self.read_data(place.at, length, outcome),
            (Op::Read, Field::Bitmap) => self.read_bitmap(place.at, length, outcome),
            (Op::Read, field) => self.read_register(setup, field, outcome),
            (Op::Write, Field::Data) => self.write_data(place.at, data, outcome),
            (Op::Write, field) => {
                let value = register(data).ok_or("a register of an odd width was located")?;
                self.write_register(setup, field, value, outcome)
            }
        }
    }

    /// Nothing is taken from a buffer that is not there, nothing counts as given: only what may have been got ready differs.
    fn bad_pointer(&self, setup: &Setup, op: Op, field: Field, outcome: &Outcome) -> Verdict {
        let Outcome::Failed(got) = outcome else {
            return Err(expected("an errno, for the buffer is not there", outcome));
        };
        let mut allowed = vec![libc::EFAULT];
        let mut next = vec![self.clone()];
        match (op, field, &self.session) {
            (Op::Read, Field::DataOffset, Session::Saving(saving)) => {
                next.push(self.with_saving(saving.offset_read(setup)));
            }
            (Op::Read, Field::CopiedPfns, Session::Saving(saving)) => {
                if let Err(rule) = saving.query() {
                    allowed = vec![errno(rule)];
                } else {
                    for base in self.looks() {
                        if let Session::Saving(saving) = &base.session {
                            let before = saving.before_query(self.bitmap_mapped);
                            next.extend(before.iter().map(|it| base.with_saving(it.query_lost())));
                        }
                    }
                }
            }
            (Op::Read, Field::CopiedPfns, _) => allowed = vec![errno(Rule::NotSaving)],
            (Op::Read, Field::Data | Field::Bitmap, Session::Saving(_)) => {
                allowed.push(errno(Rule::NotStaged));
            }
            (Op::Read, Field::Data | Field::Bitmap, _) => allowed = vec![errno(Rule::NotSaving)],
            (Op::Write, Field::Data, Session::Resuming(resuming)) => {
                // Some of it may have arrived.
                let mut written = self.clone();
                written.session = Session::Resuming(resuming.overwritten());
                next.push(written);
            }
            (Op::Write, Field::Data, _) => allowed = vec![errno(Rule::NotResuming)],
            _ => {}
        }
        if allowed.contains(got) {
            Ok(next)
        } else {
            Err(expected(format_args!("one of the errnos {allowed:?}"), outcome))
        }
    }

    fn with_saving(&self, saving: Saving) -> Self {
        let mut next = self.clone();
        next.session = Session::Saving(Box::new(saving));
        next
    }

    fn with_state(&self, state: State, session: Session) -> Self {
        let mut next = self.clone();
        (next.state, next.session) = (state, session);
        next
    }

    /// The driver looks after the transfer: it is still under way, or over and in the log.
    pub(super) fn looks(&self) -> Vec<Self> {
        let mut all = vec![self.clone()];
        if self.edu.under_way.is_some() {
            all.push(self.transfer_over());
        }
        all
    }

    fn transfer_over(&self) -> Self {
        let mut next = self.clone();
        if let (Some(transfer), Session::Saving(saving)) =
            (next.edu.under_way.take(), &mut next.session)
        {
            saving.log.mark(&transfer);
        }
        next
    }

    fn read_register(&self, setup: &Setup, field: Field, outcome: &Outcome) -> Verdict {
        let told = match outcome {
            Outcome::Done { bytes, .. } => {
                Some(register(bytes).ok_or("a register of an odd width was read")?)
            }
            _ => None,
        };
        let constant = |wanted: u64| match told {
            Some(value) if value == wanted => self.same(),
            _ => Err(expected(format_args!("{wanted:#x}"), outcome)),
        };
        let value = |what: &str| told.ok_or_else(|| expected(what, outcome));
        match (field, &self.session) {
            (Field::DeviceState, _) => constant(u64::from(self.state as u32)),
            (Field::PendingBytes, Session::Saving(saving)) => {
                let stands = self.state == State::StopAndCopy;
                let ends = saving.pending_read(value("a number of bytes")?, stands)?;
                Ok(ends
                    .into_iter()
                    .map(|(saving, complete)| {
                        let mut next = self.with_saving(saving);
                        if let Some(bytes) = complete {
                            next.keep(bytes);
                        }
                        next
                    })
                    .collect())
            }
            (Field::PendingBytes | Field::Reserved, _) => constant(0),
            (Field::DataOffset, Session::Saving(saving)) if saving.bitmap_is_current => {
                constant(setup.layout.bitmap_offset())?;
                Ok(vec![self.with_saving(saving.bitmap_located())])
            }
            (Field::DataOffset, Session::Saving(saving)) => {
                constant(setup.layout.data_offset())?;
                Ok(vec![self.with_saving(saving.offset_read(setup))])
            }
            (Field::DataOffset, _) => constant(setup.layout.data_offset()),
            (Field::DataSize, Session::Saving(saving)) => {
                Ok(vec![self.with_saving(saving.size_read(value("a number of bytes")?)?)])
            }
            (Field::DataSize, _) => constant(0),
            (Field::CopiedPfns, Session::Saving(saving)) => {
                let query = match saving.query() {
                    Ok(query) => query,
                    Err(rule) => return self.refuses(rule, outcome),
                };
                let copied = value("NONE, ALL or a number of pages")?;
                let mut next = Vec::new();
                let mut why = Vec::new();
                for base in self.looks() {
                    let Session::Saving(saving) = &base.session else { continue };
                    for saving in saving.before_query(self.bitmap_mapped) {
                        match saving.answered(setup, &query, copied) {
                            Ok(saving) => next.push(base.with_saving(saving)),
                            Err(text) => why.push(text),
                        }
                    }
                }
                if next.is_empty() { Err(why.join("; or ")) } else { Ok(next) }
            }
            (Field::CopiedPfns, _) => self.refuses(Rule::NotSaving, outcome),
            _ => Err(format!("{} is no register to read", field.name())),
        }
    }

    fn keep(&mut self, bytes: Arc<Vec<u8>>) {
        let image = Arc::new(Image { bytes, edu: self.edu.saved() });
        if !self.images.contains(&image) {
            self.images.push(image);
        }
        if self.images.len() > IMAGES {
            self.images.remove(0);
        }
    }

    fn write_register(
        &self,
        setup: &Setup,
        field: Field,
        value: u64,
        outcome: &Outcome,
    ) -> Verdict {
        let width = field.register().map_or(0, |(_, width)| width);
        match (field, &self.session) {
            (Field::DeviceState, _) => self.write_state(value, outcome),
            (Field::Reserved, _) => self.gives(width, outcome),
            (Field::DataSize, Session::Resuming(resuming)) => {
                let window = u64::from(setup.layout.data_bytes);
                let fed = resuming.size_written(value, window, &self.images, outcome)?;
                Ok(vec![self.with_state(self.state, Session::Resuming(fed))])
            }
            (Field::DataSize, _) => self.refuses(Rule::NotResuming, outcome),
            (Field::StartPfn | Field::PageSize | Field::TotalPfns, Session::Saving(saving)) => {
                self.gives(width, outcome)?;
                Ok(vec![self.with_saving(saving.query_written(field, value))])
            }
            (Field::StartPfn | Field::PageSize | Field::TotalPfns, _) => {
                self.refuses(Rule::NotSaving, outcome)
            }
            _ => Err(format!("{} is no register to write", field.name())),
        }
    }

    fn write_state(&self, value: u64, outcome: &Outcome) -> Verdict {
        let requested = u32::try_from(value).map_err(|_wide| "device_state has four bytes")?;
        let to = match self.state.next(requested) {
            Ok(to) => to,
            Err(rule) => return self.refuses(rule, outcome),
        };
        // What ended before the write does not belong to a session that the write begins.
        let mut next = Vec::new();
        for base in self.looks() {
            let from = base.state;
            if (from, to) == (State::Resuming, State::Running) {
                next.extend(base.commit(outcome)?);
                continue;
            }
            base.gives(4, outcome)?;
            let session = match base.session.clone() {
                _ if to.is_saving() && !from.is_saving() => Session::Saving(Box::default()),
                Session::Saving(saving) if to.is_saving() => {
                    Session::Saving(Box::new(saving.state_written(from, to)))
                }
                session if from == to => session,
                _ if to == State::Resuming => Session::Resuming(Resuming::default()),
                _ => Session::Idle,
            };
            let moved = base.with_state(to, session);
            // A write that stops the device waits for its transfer.
            let stops = from.is_running() && !to.is_running();
            next.push(if stops { moved.transfer_over() } else { moved });
        }
        Ok(next)
    }

    /// The image that has come becomes the device's state.
    fn commit(&self, outcome: &Outcome) -> Verdict {
        let Session::Resuming(resuming) = &self.session else {
            return Err("resuming without a session".to_owned());
        };
        let incomplete = errno(Rule::ImageIncomplete);
        let committed = |edu: Edu| {
            let mut next = self.with_state(State::Running, Session::Idle);
            next.edu = edu.decoding(self.edu.decodes);
            next
        };
        match (resuming.complete(&self.images), outcome) {
            (Some(Some(image)), _) => {
                self.gives(4, outcome)?;
                Ok(vec![committed(image.edu.clone())])
            }
            (Some(None), _) => self.fails(incomplete, outcome),
            (None, Outcome::Done { .. }) => Ok(vec![committed(Edu::unknown())]),
            (None, _) => self.fails(incomplete, outcome),
        }
    }

    fn read_data(&self, at: u64, length: u64, outcome: &Outcome) -> Verdict {
        match &self.session {
            Session::Saving(saving) => {
                Ok(vec![self.with_saving(saving.data_read(at, length, outcome)?)])
            }
            _ => self.refuses(Rule::NotSaving, outcome),
        }
    }

    fn read_bitmap(&self, at: u64, length: u64, outcome: &Outcome) -> Verdict {
        match &self.session {
            Session::Saving(saving) => {
                Ok(vec![self.with_saving(saving.bitmap_read(at, length, outcome)?)])
            }
            _ => self.refuses(Rule::NotSaving, outcome),
        }
    }

    fn write_data(&self, at: u64, data: &[u8], outcome: &Outcome) -> Verdict {
        let Session::Resuming(resuming) = &self.session else {
            return self.refuses(Rule::NotResuming, outcome);
        };
        self.gives(u64::try_from(data.len()).unwrap_or(u64::MAX), outcome)?;
        let mut next = self.clone();
        next.session = Session::Resuming(resuming.data_written(at, data));
        Ok(vec![next])
    }
}
