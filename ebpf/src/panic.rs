// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A panic handler, since Rust asks for one.
//!
//! No program can reach it: the verifier refuses an endless loop, so an object in which a panic is left does not load.

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
