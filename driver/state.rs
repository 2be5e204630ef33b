// SPDX-License-Identifier: GPL-2.0
//! The arcs: what is done on the way from one state to another. Which arcs there are is said by [`State::next`], with the
//! picture in [`abi::state`](crate::abi::state).
//!
//! ```text
//!   an arc that …               does
//!   sets SAVING                 arms the dirty log, prepares the image's header, has all device memory to be sent
//!   clears RUNNING              waits for DMA under way, brings the device to rest, takes away write access to its memory
//!   clears SAVING               drops log, image and whatever is staged
//!   sets RESUMING               expects an image
//!   resuming → running          commits the image, which must be complete
//!   resuming → stopped          drops the image; the device is what it was, but for memory that has come
//!   stopped or stop-and-copy → running   sets the device going
//! ```
//!
//! An arc is done when the write returns. If it fails, everything is as it was before, but for one case: when the device
//! itself fails half way, its state is lost, the state is *error*, and only a reset leaves it.
//!
//! The log is armed before the device is stopped: a transfer that started before SAVING was set and ends after it counts,
//! and what a quiescing transfer wrote is in the log before anybody can ask.

use kernel::prelude::*;

use crate::{
    abi::{
        rule::Rule,
        state::{
            Cause,
            State, //
        },
    },
    region::{
        Migration,
        Resuming,
        Saving,
        Session, //
    },
    trace,
    vfio::Device,
};

impl Migration {
    /// `device_state` is written.
    ///
    /// # Errors
    ///
    /// The rule that the request breaks, or why the arc failed.
    pub(crate) fn write_state(&mut self, device: &Device, requested: u32) -> Result<(), Rule> {
        let (from, watch) = (self.state, trace::time_state());
        // What ended before the arc does not belong to the session that it may begin.
        self.poll(device);
        let result = from.next(requested).and_then(|to| self.go(device, to));
        let code = result.map_or_else(|rule| -rule.errno(), |()| 0);
        self.trace_state(from, requested, Cause::Write, code, watch.elapsed_ns());
        result.inspect_err(|rule| self.fail_if_lost(*rule))
    }

    /// `VFIO_DEVICE_RESET`: the power-on state, running, nothing under way.
    ///
    /// # Errors
    ///
    /// The errno of the rule that says why the device could not be reset.
    pub(crate) fn reset(&mut self, device: &Device) -> Result {
        let (from, watch) = (self.state, trace::time_state());
        let result = self.stop(device).and_then(|()| self.model.reset(device));
        if result.is_ok() {
            self.session = Session::Idle;
            self.state = State::Running;
            self.settle_memory(false);
        }
        let code = result.map_or_else(|rule| -rule.errno(), |()| 0);
        self.trace_state(from, State::Running as u32, Cause::Reset, code, watch.elapsed_ns());
        result.map_err(|rule| {
            let error = self.refuse_reset(rule);
            self.fail_if_lost(rule);
            error
        })
    }

    /// Enters *error* if `rule` says that the device's state is lost.
    pub(crate) fn fail_if_lost(&mut self, rule: Rule) {
        if rule == Rule::DeviceFailed && self.state != State::Error {
            let from = self.state;
            self.session = Session::Idle;
            self.state = State::Error;
            self.settle_memory(false);
            self.trace_state(from, State::Error as u32, Cause::Failure, -rule.errno(), 0);
        }
    }

    /// Goes along an arc that exists.
    fn go(&mut self, device: &Device, to: State) -> Result<(), Rule> {
        let from = self.state;
        let arms = to.is_saving() && !from.is_saving();
        let expects = to == State::Resuming && from != to;
        let resuming = expects.then(|| Resuming::new(&*self.model)).transpose()?;
        if arms {
            self.session = Session::Saving(Saving::new(&*self.model)?);
        }
        let moved = match (from, to) {
            _ if from == to => Ok(()),
            (State::Resuming, State::Running) => self.commit(device),
            (State::Stopped | State::StopAndCopy, State::Running) => self.model.start(device),
            _ if from.is_running() && !to.is_running() => self.stop(device),
            _ => Ok(()),
        };
        if moved.is_err() {
            if arms {
                self.session = Session::Idle;
            }
            return moved;
        }
        if from != to {
            if let Some(resuming) = resuming {
                self.session = Session::Resuming(resuming);
            } else if !to.is_saving() {
                self.session = Session::Idle;
            }
        }
        if let Session::Saving(saving) = &mut self.session {
            saving.make_data_current();
        }
        self.state = to;
        self.settle_memory(arms);
        Ok(())
    }

    /// Brings the device to rest and logs what its last transfer wrote.
    pub(crate) fn stop(&mut self, device: &Device) -> Result<(), Rule> {
        self.model.stop(device)?;
        self.poll(device);
        Ok(())
    }

    fn commit(&mut self, device: &Device) -> Result<(), Rule> {
        let Session::Resuming(resuming) = &self.session else { return Err(Rule::NotResuming) };
        let parts = resuming.image.complete().ok_or(Rule::ImageIncomplete)?;
        self.model.restore(device, parts)
    }
}
