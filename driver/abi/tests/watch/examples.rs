// SPDX-License-Identifier: GPL-2.0 OR MIT
//! For each rule a trace that breaks it and one near it that does not, by what they are about.

#[path = "examples/query.rs"]
mod query;
#[path = "examples/resuming.rs"]
mod resuming;
#[path = "examples/saving.rs"]
mod saving;
#[path = "examples/state.rs"]
mod state;

use crate::scene::Scene;
use migscope_abi::watch::conduct::Conduct;

/// A rule, a trace that breaks it once and no other, and one near it that breaks none. Each begins with a device that was just opened.
pub(crate) type Example = (Conduct, fn(&mut Scene), fn(&mut Scene));

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Example> {
    [state::EXAMPLES, saving::EXAMPLES, resuming::EXAMPLES, query::EXAMPLES].into_iter().flatten()
}
