// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's type information (BTF, `Documentation/bpf/btf.rst`): where fields are, and which functions have a signature.
//!
//! ```text
//!   /sys/kernel/btf/vmlinux ──┐
//!   /sys/kernel/btf/vfio,     ├─▶ offsets of fields          for the probes, which follow pointers by them
//!     iommufd, kvm ───────────┘
//!   /sys/kernel/btf/MODULE ─────▶ functions by signature     for where they are attached
//! ```
//!
//! No layout is built in. What this kernel does not describe is refused, with the field's name.
//!
//! **Which functions move device data.** Their names are each driver's own, so they are found by what they are: a module with a function
//! `struct file *(struct vfio_device *, enum vfio_device_mig_state)` has a driver of the v2 protocol, for that is what
//! `vfio_migration_ops.migration_set_state` must be; and what in it has the signature of a file's read, write or ioctl is an operation
//! of a file that the driver makes. There are a few more of them than there are data files, and a probe that sees another file's call leaves it
//! alone.

mod structure;

use super::attach::{Missing, chain};
use btf_rs::{Btf, BtfType, Type};
use migscope_abi::{
    outside::RegionOffsets,
    probe::{FileOp, Subsystem},
    tracking::TrackingOffsets,
    v2::Offsets,
};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};
use structure::{Structure, mapped};

/// Where the structure is that a PCI device's regions are kept in, and what it is called: the second before Linux 5.15.
const CORES: [(&str, &str); 2] =
    [("vfio_pci_core", "vfio_pci_core_device"), ("vfio_pci", "vfio_pci_device")];

/// What a name of a function stands for: an operation of a file that carries device data, perhaps.
pub type Candidates = BTreeMap<FileOp, BTreeSet<String>>;

/// Why types are not known.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// The kernel offers none.
    #[error("this kernel has no type information at {0}")]
    Absent(PathBuf),
    /// They could not be read or made no sense.
    #[error("failed to read the kernel's type information at {0}")]
    Unreadable(PathBuf, #[source] btf_rs::Error),
    /// A field that is needed is not there.
    #[error("this kernel's struct {structure} has no field {field}")]
    NoField {
        /// Of which structure.
        structure: &'static str,
        /// Which one.
        field: &'static str,
    },
}

impl TypesError {
    /// In words for people: why, and what would mend it.
    pub fn missing(&self) -> Missing {
        let remedy = match self {
            Self::Absent(_) => {
                "run a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_DEBUG_INFO_BTF_MODULES, as distributions build theirs"
            }
            Self::Unreadable(..) | Self::NoField { .. } => {
                "report it with the version of the kernel (uname -r): its structures are not those that migscope knows"
            }
        };
        Missing::new(chain(self), remedy)
    }
}

/// The types of the running kernel: its own, and those of its modules.
pub struct KernelTypes {
    folder: PathBuf,
    vmlinux: Btf,
}

/// The types, read when somebody first asks for them.
pub type LazyTypes = OnceCell<Result<KernelTypes, TypesError>>;

impl KernelTypes {
    /// Reads the kernel's own. They take some megabytes, so nobody keeps them for long.
    ///
    /// # Errors
    ///
    /// [`TypesError::Absent`], [`TypesError::Unreadable`].
    pub fn read(sysfs: &Path) -> Result<Self, TypesError> {
        let folder = sysfs.join("kernel/btf");
        let path = folder.join("vmlinux");
        let bytes = read(&path)?;
        // A file in memory may be refused where processes are confined.
        let vmlinux = mapped(&bytes)
            .or_else(|_unmapped| Btf::from_bytes(&bytes))
            .map_err(|error| TypesError::Unreadable(path, error))?;
        Ok(Self { folder, vmlinux })
    }

    /// The types of a module; `None` for one that is built in.
    fn module(&self, name: &str) -> Result<Option<Btf>, TypesError> {
        let path = self.folder.join(name);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(TypesError::Absent(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let module = Btf::from_split_bytes(&bytes, &self.vmlinux);
        module.map(Some).map_err(|error| TypesError::Unreadable(path, error))
    }

    /// Where the fields are that the probes follow.
    ///
    /// # Errors
    ///
    /// [`TypesError`].
    pub fn offsets(&self) -> Result<Offsets, TypesError> {
        let vfio = self.module("vfio")?;
        let vfio = vfio.as_ref().unwrap_or(&self.vmlinux);
        let kernel = |name| Structure::find(&self.vmlinux, name);
        // Before Linux 6.6 a device's file pointed to the device itself.
        let device_file = Structure::find(vfio, "vfio_device_file").offset("device");
        let operations = kernel("file_operations");
        let [read, write, ioctl] = FileOp::ALL.map(|op| operations.offset(op.field()));
        let (file, table) = (kernel("file"), kernel("fdtable"));
        let device_kobject = kernel("device").offset("kobj")?;
        Ok(Offsets {
            file_private_data: file.offset("private_data")?,
            file_f_op: file.offset("f_op")?,
            file_f_pos: file.offset("f_pos")?,
            device_file_device_plus_one: device_file.map_or(0, |at| at.saturating_add(1)),
            vfio_device_dev: Structure::find(vfio, "vfio_device").offset("dev")?,
            device_name: device_kobject.saturating_add(kernel("kobject").offset("name")?),
            task_files: kernel("task_struct").offset("files")?,
            files_fdt: kernel("files_struct").offset("fdt")?,
            fdtable_max_fds: table.offset("max_fds")?,
            fdtable_fd: table.offset("fd")?,
            f_op: [read?, write?, ioctl?],
            known: 1,
        })
    }

    /// Puts the offsets of the structures of `subsystem` into `offsets`; `page_bytes` is the size of a page of this host.
    ///
    /// # Errors
    ///
    /// [`TypesError`]; then `offsets` are as they were.
    pub fn tracking_offsets(
        &self,
        subsystem: Subsystem,
        page_bytes: u32,
        offsets: &mut TrackingOffsets,
    ) -> Result<(), TypesError> {
        let module = self.module(subsystem.module())?;
        let types = module.as_ref().unwrap_or(&self.vmlinux);
        let structure = |name| Structure::find(types, name);
        match subsystem {
            Subsystem::Vfio | Subsystem::Type1 => {}
            Subsystem::Iommufd => {
                offsets.ucmd_cmd = structure("iommufd_ucmd").offset("cmd")?;
                offsets.iommufd_known = 1;
            }
            Subsystem::Kvm => {
                let slot = structure("kvm_memory_slot");
                *offsets = TrackingOffsets {
                    slot_base_gfn: slot.offset("base_gfn")?,
                    slot_pages: slot.offset("npages")?,
                    kvm_manual_protect: structure("kvm").offset("manual_dirty_log_protect")?,
                    page_bytes,
                    file_private_data: structure("file").offset("private_data")?,
                    kvm_known: 1,
                    ..*offsets
                };
            }
        }
        Ok(())
    }

    /// Where the fields are that lead from a device to its driver and to its regions; and whether those of vfio-pci-core, which may be
    /// loaded later, are among them.
    ///
    /// # Errors
    ///
    /// [`TypesError`].
    pub fn region_offsets(&self) -> Result<(RegionOffsets, bool), TypesError> {
        let kernel = |name| Structure::find(&self.vmlinux, name);
        let vfio = self.module("vfio")?;
        let vfio = vfio.as_ref().unwrap_or(&self.vmlinux);
        let open_count = Structure::find(vfio, "vfio_device").offset("open_count");
        let mut offsets = RegionOffsets {
            device_driver: kernel("device").offset("driver")?,
            driver_name: kernel("device_driver").offset("name")?,
            open_count_plus_one: open_count.map_or(0, |at| at.saturating_add(1)),
            pci_dev_dev: kernel("pci_dev").offset("dev")?,
            core_pdev: 0,
            core_num_regions: 0,
            ours_are_told: 0,
            known: 1,
        };
        for (module, structure) in CORES {
            let types = self.module(module)?;
            let types = types.as_ref().unwrap_or(&self.vmlinux);
            let core = Structure::find(types, structure);
            if let (Ok(pdev), Ok(regions)) = (core.offset("pdev"), core.offset("num_regions")) {
                offsets.core_pdev = pdev;
                offsets.core_num_regions = regions;
                return Ok((offsets, true));
            }
        }
        Ok((offsets, false))
    }

    /// The functions of `modules` that may move device data.
    ///
    /// # Errors
    ///
    /// [`TypesError::Unreadable`], for the first module that cannot be read.
    pub fn candidates<'a>(
        &self,
        modules: impl Iterator<Item = &'a str>,
    ) -> Result<Candidates, TypesError> {
        let mut found = Candidates::new();
        for module in modules {
            let path = || self.folder.join(module);
            if let Some(types) = self.module(module)? {
                collect(&types, &mut found)
                    .map_err(|error| TypesError::Unreadable(path(), error))?;
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TypesError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TypesError::Absent(path.into()),
        _ => TypesError::Unreadable(path.into(), error.into()),
    })
}

fn collect(types: &Btf, found: &mut Candidates) -> Result<(), btf_rs::Error> {
    let Some(own) = types.split() else {
        return Ok(());
    };
    let mut functions = Vec::new();
    let mut migrates = false;
    let (first, last) = own.type_id_range();
    for id in first..=last {
        let Type::Func(function) = types.resolve_type_by_id(id)? else {
            continue;
        };
        let Type::FuncProto(prototype) = types.resolve_chained_type(&function)? else {
            continue;
        };
        let parameters: Vec<_> =
            prototype.parameters.iter().map(|parameter| spelled(types, parameter)).collect();
        let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
        match parameters[..] {
            ["vfio_device*", "vfio_device_mig_state"] => migrates = true,
            ["file*", "char*", _, "long long int*"] => {
                functions.push((FileOp::Read, types.resolve_name(&function)?));
            }
            ["file*", "const char*", _, "long long int*"] => {
                functions.push((FileOp::Write, types.resolve_name(&function)?));
            }
            ["file*", "unsigned int", "long unsigned int"] => {
                functions.push((FileOp::Ioctl, types.resolve_name(&function)?));
            }
            _ => {}
        }
    }
    if migrates {
        for (op, function) in functions {
            found.entry(op).or_default().insert(function);
        }
    }
    Ok(())
}

/// Links that are followed from a name to what it stands for.
const DEPTH: u32 = 8;

/// A type as C would write it, without `struct` and `enum`, typedefs followed; empty for one that is not understood.
fn spelled(types: &Btf, of: &dyn BtfType) -> String {
    let mut stars = String::new();
    let mut constant = false;
    let Ok(mut next) = types.resolve_chained_type(of) else {
        return String::new();
    };
    for _ in 0..DEPTH {
        let name = match &next {
            Type::Ptr(_) => {
                stars.push('*');
                None
            }
            Type::Const(_) => {
                // What a pointer points to; the parameter's own constness says nothing.
                constant |= !stars.is_empty();
                None
            }
            Type::Typedef(_) | Type::Volatile(_) | Type::Restrict(_) | Type::TypeTag(_) => None,
            Type::Struct(named) => Some(types.resolve_name(named)),
            Type::Fwd(named) => Some(types.resolve_name(named)),
            Type::Int(named) => Some(types.resolve_name(named)),
            Type::Enum(named) => Some(types.resolve_name(named)),
            _ => return String::new(),
        };
        match name {
            Some(Ok(name)) => {
                return format!("{}{name}{stars}", if constant { "const " } else { "" });
            }
            Some(Err(_)) => return String::new(),
            None => {}
        }
        let Some(link) = next.as_btf_type() else {
            return String::new();
        };
        let Ok(further) = types.resolve_chained_type(link) else {
            return String::new();
        };
        next = further;
    }
    String::new()
}
