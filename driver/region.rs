// SPDX-License-Identifier: GPL-2.0
//! The migration region: what each access to the 64-byte struct and to the two windows does.
//!
//! ```text
//!   saving     pending_bytes ──▶ data_offset ──▶ data_size ──▶ data window ──┐
//!                   ▲  ends the buffer  stages the next                      │
//!                   └────────────────────────────────────────────────────────┘
//!   dirty      start_pfn, page_size, total_pfns ──▶ copied_pfns ──▶ data_offset ──▶ bitmap window
//!   resuming   data_offset ──▶ data window ──▶ data_size, which takes the buffer in
//! ```
//!
//! Source: RFC "vfio/pci: register a default migration region" (Yan Zhao, 2019), and where it is silent, the text that
//! followed it in `include/uapi/linux/vfio.h` (5.8 to 5.17). Which access hits what is decided by
//! [`Layout::locate`](crate::abi::region::Layout::locate), which state follows which by [`State::next`] and [`state`](crate::state), and each errno by
//! [`Rule::errno`]. The trapped BAR is in [`bar`](crate::bar).
//!
//! # `data_offset` names the current window
//!
//! "Data_offset can be same or different for device data and dirty pages bitmap." Here they differ, so a read of
//! `data_offset` must know which it is asked for. A read of `copied_pfns` that answers with a bitmap makes the bitmap window
//! current, which is what step c of the dirty sequence reads next. The data window is current again after the next read of
//! `pending_bytes`, step a of the data sequence; after a query with another answer; and after a write of `device_state`. A
//! read of `data_offset` never changes which window is current, and it stages data only for the data window. `data_size` goes
//! with the current window.
//!
//! # Nothing is lost on the way to the user
//!
//! A register's value is computed, then copied to the user, and only then does what the read means take place. If the copy
//! fails, the buffer has not been consumed, the pages have not been reported.
//!
//! # Mapped windows
//!
//! What user space does in a mapping is not seen, so nothing depends on it but one thing: when a bitmap has arrived, which
//! [`query`] says. A piece of an image is copied before it is looked at.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*,
    sync::Arc, //
};

use crate::{
    abi::{
        device::DeviceKey,
        region::{
            Field,
            Op, //
        },
        rule::Rule,
        state::{
            Cause,
            State, //
        },
        trace::{
            self as record,
            DataDirection, //
        },
    },
    device::DeviceModel,
    dirty::Log,
    image::{
        Reader,
        Writer, //
    },
    mediate::Leftover,
    memory::{
        Receiver,
        Sender, //
    },
    trace,
    vfio::{
        Access,
        Device, //
    },
    windows::Windows,
};

mod memory;
mod query;

/// A device with a migration region, between open and close. Everything here is under the device lock.
pub(crate) struct Migration {
    pub(crate) key: DeviceKey,
    pub(crate) model: KBox<dyn DeviceModel>,
    pub(crate) state: State,
    pub(crate) session: Session,
    windows: Arc<Windows>,
}

/// What goes on beside the state: there is a saving session while the state is saving, and a resuming one while resuming.
pub(crate) enum Session {
    /// Nothing.
    Idle,
    /// State is being saved and dirty pages are logged.
    Saving(Saving),
    /// State is being taken in.
    Resuming(Resuming),
}

/// A session of a source.
pub(crate) struct Saving {
    stream: Writer,
    /// Sends device memory, if the device has any.
    memory: Option<Sender>,
    /// The buffer in the data window, from its staging until it is consumed.
    staged: Option<Staged>,
    iteration: u64,
    pub(crate) log: Log,
    /// `start_pfn`, `page_size` and `total_pfns`. They keep their values from query to query.
    query: [Option<u64>; 3],
    /// The bitmap in the bitmap window.
    report: Option<query::Report>,
    bitmap_is_current: bool,
}

#[derive(Clone, Copy)]
struct Staged {
    bytes: usize,
    duration_ns: u64,
    /// Whether it is of the stream's writer, to whom it has to be told that it was sent. Else it is device memory.
    of_writer: bool,
}

/// A session of a destination.
pub(crate) struct Resuming {
    pub(crate) image: Reader,
    /// Takes device memory in, if the device has any.
    memory: Option<Receiver>,
    iteration: u64,
}

impl Saving {
    /// Arms the dirty log and prepares the header, which is all that pre-copy has to send.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(model: &dyn DeviceModel) -> Result<Self, Rule> {
        Ok(Self {
            stream: Writer::new(&model.identity())?,
            memory: model.memory().map(|memory| Sender::new(memory.pages())).transpose()?,
            staged: None,
            iteration: 0,
            log: Log::new(),
            query: [None; 3],
            report: None,
            bitmap_is_current: false,
        })
    }

    /// The state has changed: the next `data_offset` is for data.
    pub(crate) fn make_data_current(&mut self) {
        self.bitmap_is_current = false;
    }

    /// The bitmap in the window is no answer any more. What it reported and did not arrive is dirty again.
    fn drop_report(&mut self) {
        self.log.take_back();
        self.report = None;
        self.bitmap_is_current = false;
    }

    /// What is left to be sent: what pre-copy has, and the size that stop-and-copy will have at most.
    fn pending_bytes(&self, model: &dyn DeviceModel) -> u64 {
        let staged = self.staged.filter(|staged| staged.of_writer);
        let staged = staged.map_or(0, |staged| usize_as_u64(staged.bytes));
        let memory = match (&self.memory, model.memory()) {
            (Some(sender), Some(memory)) => sender.pending_bytes(memory.count_written()),
            _ => 0,
        };
        self.stream.ready_bytes() - staged + memory + self.stream.later_bytes(model.parts())
    }
}

impl Resuming {
    /// A session to which nothing has come.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(model: &dyn DeviceModel) -> Result<Self, Rule> {
        let memory = model.memory().map(|memory| Receiver::new(memory.pages())).transpose()?;
        Ok(Self { image: Reader::new(), memory, iteration: 0 })
    }
}

/// A refused access to the region or to the trapped BAR.
pub(crate) struct Refused {
    pub(crate) field: Field,
    /// What was written; 0 for a read.
    pub(crate) value: u64,
    pub(crate) rule: Rule,
}

impl Migration {
    /// Takes a device that is being opened: it runs, from its power-on state on.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what [`DeviceModel::reset`] says, if the device cannot be brought to its power-on state.
    pub(crate) fn open(
        device: &Device,
        model: KBox<dyn DeviceModel>,
        windows: Arc<Windows>,
        left: Leftover,
    ) -> Result<Self> {
        let mut migration = Self {
            key: device.key(),
            model,
            state: State::Running,
            session: Session::Idle,
            windows,
        };
        if left == Leftover::Unknown {
            // What cannot be scrubbed yet, for want of an address space, the model keeps in mind.
            if migration.model.scrub(device).is_err() {
                migration.model.reset(device).map_err(|rule| migration.refuse_reset(rule))?;
            }
        }
        migration.trace_state(State::Running, State::Running as u32, Cause::Open, 0, 0);
        Ok(migration)
    }

    /// Ends whatever is under way and leaves nothing of the user's in the device.
    pub(crate) fn close(&mut self, device: &Device) -> Leftover {
        let (from, watch) = (self.state, trace::time_state());
        let scrubbed = self.stop(device).and_then(|()| self.model.scrub(device));
        self.session = Session::Idle;
        self.state = State::Running;
        self.trace_state(from, State::Running as u32, Cause::Close, 0, watch.elapsed_ns());
        if scrubbed.is_ok() {
            Leftover::Clean
        } else {
            Leftover::Unknown
        }
    }

    /// One read or write of the region.
    ///
    /// # Errors
    ///
    /// The errno of the rule that the access breaks.
    pub(crate) fn access(&mut self, device: &Device, access: &Access) -> Result<usize> {
        let watch = trace::time_region_access();
        let outcome = self.serve(device, access).map_err(|refused| {
            let error = self.refuse(access.offset, access.bytes, access.op, &refused);
            (refused.field, error)
        });
        trace::region_access(|| {
            let (field, value, result) = match outcome {
                Ok((field, value)) => {
                    (field, value, i64::try_from(access.bytes).unwrap_or(i64::MAX))
                }
                Err((field, error)) => (field, 0, i64::from(error.to_errno())),
            };
            record::RegionAccess {
                device: self.key.0,
                offset: access.offset,
                bytes: usize_as_u64(access.bytes),
                value,
                duration_ns: watch.elapsed_ns(),
                result,
                field: field as u32,
                op: access.op as u32,
                state: self.state as u32,
                reserved: 0,
            }
        });
        outcome.map(|_| access.bytes).map_err(|(_, error)| error)
    }

    fn serve(&mut self, device: &Device, access: &Access) -> Result<(Field, u64), Refused> {
        let refuse = |field, value| move |rule| Refused { field, value, rule };
        let place = self
            .windows
            .layout()
            .locate(access.offset, usize_as_u64(access.bytes), access.op)
            .map_err(refuse(self.windows.layout().field_at(access.offset), 0))?;
        let field = place.field;
        match (field, access.op) {
            (Field::Data | Field::Bitmap, op) => {
                let at = usize::try_from(place.at).unwrap_or(usize::MAX);
                match (field, op) {
                    (Field::Bitmap, _) => self.read_bitmap(access, at),
                    (_, Op::Read) => self.read_data(access, at),
                    (_, Op::Write) => self.write_data(access, at),
                }
                .map_err(refuse(field, 0))?;
                Ok((field, 0))
            }
            (_, Op::Read) => {
                let value = self.read_register(device, access, field).map_err(refuse(field, 0))?;
                Ok((field, value))
            }
            (_, Op::Write) => {
                let value = take_register(access).map_err(refuse(field, 0))?;
                self.write_register(device, field, value).map_err(refuse(field, value))?;
                Ok((field, value))
            }
        }
    }

    fn read_register(
        &mut self,
        device: &Device,
        access: &Access,
        field: Field,
    ) -> Result<u64, Rule> {
        if field == Field::CopiedPfns {
            return self.answer_query(device, access);
        }
        let value = match (field, &self.session) {
            (Field::DeviceState, _) => u64::from(self.state as u32),
            (Field::PendingBytes, Session::Saving(saving)) => saving.pending_bytes(&*self.model),
            (Field::DataOffset, _) => self.data_offset(device)?,
            (Field::DataSize, _) => self.data_size(),
            // `pending_bytes` of a device that does not save, and the reserved field. The write-only fields do not get here.
            _ => 0,
        };
        give_register(access, value)?;
        match field {
            Field::PendingBytes => self.consume(value),
            Field::DataOffset => self.locate_report(),
            _ => {}
        }
        Ok(value)
    }

    /// `pending_bytes` was read: the buffer that was staged before is over.
    fn consume(&mut self, pending_bytes: u64) {
        let Session::Saving(saving) = &mut self.session else { return };
        saving.bitmap_is_current = false;
        let Some(staged) = saving.staged.take() else { return };
        if staged.of_writer {
            saving.stream.sent(staged.bytes);
        }
        saving.iteration += 1;
        trace::data(|| record::Data {
            device: self.key.0,
            bytes: usize_as_u64(staged.bytes),
            iteration: saving.iteration,
            pending_bytes,
            duration_ns: staged.duration_ns,
            direction: DataDirection::Save as u32,
            state: self.state as u32,
        });
    }

    /// `data_offset`: the current window. For data, while saving, it stages the next buffer, once.
    fn data_offset(&mut self, device: &Device) -> Result<u64, Rule> {
        if let Session::Saving(saving) = &mut self.session {
            if saving.bitmap_is_current {
                return Ok(self.windows.layout().bitmap_offset());
            }
            if saving.staged.is_none() {
                self.stage(device).inspect_err(|rule| self.fail_if_lost(*rule))?;
            }
        }
        Ok(self.windows.layout().data_offset())
    }

    /// Fills the data window: with what the stream's writer has, else with device memory, else, if the device stands still,
    /// with its next part.
    fn stage(&mut self, device: &Device) -> Result<(), Rule> {
        let watch = trace::time_data();
        let mut staged = self.stage_next()?;
        if staged.is_none() {
            staged = self.stage_memory(device)?;
        }
        if staged.is_none() && self.state == State::StopAndCopy {
            let Session::Saving(saving) = &mut self.session else { return Ok(()) };
            let model = &mut self.model;
            let parts = model.parts();
            saving.stream.refill(parts, |kind, payload| model.save(device, kind, payload))?;
            staged = self.stage_next()?;
        }
        // With nothing to send no buffer is begun: when there is something, a later read of data_offset will find it.
        if let Session::Saving(saving) = &mut self.session {
            let duration_ns = watch.elapsed_ns();
            saving.staged = staged.map(|staged| Staged { duration_ns, ..staged });
        }
        Ok(())
    }

    /// Copies what the stream's writer has to the data window.
    fn stage_next(&mut self) -> Result<Option<Staged>, Rule> {
        let Session::Saving(saving) = &self.session else { return Ok(None) };
        let window = &self.windows.data;
        let next = saving.stream.next(window.bytes());
        window.put(0, next)?;
        let staged = Staged { bytes: next.len(), duration_ns: 0, of_writer: true };
        Ok((staged.bytes > 0).then_some(staged))
    }

    fn data_size(&self) -> u64 {
        match &self.session {
            Session::Saving(Saving { bitmap_is_current: true, report: Some(report), .. }) => {
                usize_as_u64(report.readable())
            }
            Session::Saving(Saving { staged: Some(staged), .. }) => usize_as_u64(staged.bytes),
            _ => 0,
        }
    }

    fn write_register(&mut self, device: &Device, field: Field, value: u64) -> Result<(), Rule> {
        let query_register = match field {
            Field::DeviceState => return self.write_state(device, low_half(value)),
            Field::DataSize => return self.take_in(device, value),
            Field::StartPfn => 0,
            Field::PageSize => 1,
            Field::TotalPfns => 2,
            // Reserved: ignored. The read-only fields do not get here.
            _ => return Ok(()),
        };
        let Session::Saving(saving) = &mut self.session else { return Err(Rule::NotSaving) };
        if let Some(register) = saving.query.get_mut(query_register) {
            *register = Some(value);
        }
        Ok(())
    }

    /// `data_size` is written: the buffer is complete.
    fn take_in(&mut self, device: &Device, bytes: u64) -> Result<(), Rule> {
        let Session::Resuming(resuming) = &mut self.session else {
            return Err(Rule::NotResuming);
        };
        let window = &self.windows.data;
        let piece_bytes = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= window.bytes())
            .ok_or(Rule::DataSize)?;
        if piece_bytes == 0 {
            return Ok(());
        }
        let watch = trace::time_data();
        let (identity, parts) = (self.model.identity(), self.model.parts());
        let mut intake =
            memory::Intake { device, model: &*self.model, receiver: &mut resuming.memory };
        resuming.image.feed(
            piece_bytes,
            |piece| window.take(0, piece),
            &identity,
            parts,
            &mut intake,
        )?;
        resuming.iteration += 1;
        trace::data(|| record::Data {
            device: self.key.0,
            bytes,
            iteration: resuming.iteration,
            pending_bytes: 0,
            duration_ns: watch.elapsed_ns(),
            direction: DataDirection::Resume as u32,
            state: self.state as u32,
        });
        Ok(())
    }

    fn read_data(&mut self, access: &Access, at: usize) -> Result<(), Rule> {
        let Session::Saving(saving) = &self.session else { return Err(Rule::NotSaving) };
        let staged = saving.staged.map_or(0, |staged| staged.bytes);
        if at.checked_add(access.bytes).is_none_or(|end| end > staged) {
            return Err(Rule::NotStaged);
        }
        self.windows.data.give(at, access)
    }

    fn write_data(&mut self, access: &Access, at: usize) -> Result<(), Rule> {
        let Session::Resuming(_) = &self.session else { return Err(Rule::NotResuming) };
        self.windows.data.receive(at, access)
    }

    pub(crate) fn trace_state(
        &self,
        from: State,
        requested: u32,
        cause: Cause,
        result: i32,
        duration_ns: u64,
    ) {
        trace::state(|| record::State {
            device: self.key.0,
            duration_ns,
            from: from as u32,
            requested,
            now: self.state as u32,
            cause: cause as u32,
            result,
            reserved: 0,
        });
    }

    /// Says in the tracepoint `error` which rule was broken, and gives its errno.
    pub(crate) fn refuse(&self, offset: u64, bytes: usize, op: Op, refused: &Refused) -> Error {
        let errno = -refused.rule.errno();
        trace::error(|| record::Error {
            device: self.key.0,
            offset,
            bytes: usize_as_u64(bytes),
            value: refused.value,
            rule: refused.rule as u32,
            errno,
            field: refused.field as u32,
            op: op as u32,
            state: self.state as u32,
            reserved: 0,
        });
        Error::from_errno(errno)
    }

    /// As [`Migration::refuse`], for what is no access to a field: the device could not be brought to its power-on state.
    pub(crate) fn refuse_reset(&self, rule: Rule) -> Error {
        self.refuse(0, 0, Op::Write, &Refused { field: Field::Nothing, value: 0, rule })
    }
}

/// The value of a register of four bytes.
fn low_half(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// Copies a register to the user, in the machine's own byte order.
fn give_register(access: &Access, value: u64) -> Result<(), Rule> {
    if access.bytes == size_of::<u32>() {
        access.give(0, &low_half(value).to_ne_bytes())
    } else {
        access.give(0, &value.to_ne_bytes())
    }
}

/// Copies a register from the user.
fn take_register(access: &Access) -> Result<u64, Rule> {
    if access.bytes == size_of::<u32>() {
        let mut bytes = [0; size_of::<u32>()];
        access.take(0, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes).into())
    } else {
        let mut bytes = [0; size_of::<u64>()];
        access.take(0, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
