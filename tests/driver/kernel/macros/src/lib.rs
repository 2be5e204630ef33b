// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `rust/macros/lib.rs`.

use proc_macro::TokenStream;

/// A suite that KUnit runs when the module is loaded, and libtest on the host: there it is a module of tests as any other.
#[proc_macro_attribute]
pub fn kunit_tests(_suite: TokenStream, module: TokenStream) -> TokenStream {
    let test: TokenStream = "#[cfg(test)]".parse().expect("an attribute");
    test.into_iter().chain(module).collect()
}
