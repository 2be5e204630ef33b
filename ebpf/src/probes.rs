// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The programs, by subject. Each is a thin entry: it reads its record, adds up, and emits what is rare.

mod data_file;
mod device_ioctl;
mod dirty;
mod iommufd;
mod kvm;
mod outside;
mod region;
mod type1;
