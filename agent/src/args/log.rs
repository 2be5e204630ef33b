// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The log: from which level, in which form.

use crate::{
    config,
    logging::{Format, Level},
};
use clap::Args;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Lowest level that is logged. The log goes to standard error. [default: info]
    #[arg(long = "log.level", value_enum, value_name = "LEVEL", global = true)]
    level: Option<Level>,
    /// Form of the log. [default: text]
    #[arg(long = "log.format", value_enum, value_name = "FORMAT", global = true)]
    format: Option<Format>,
}

impl From<Flags> for config::Log {
    fn from(Flags { level, format }: Flags) -> Self {
        Self { level, format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Typed;
    use clap::Parser as _;

    #[test]
    fn log_flags_stand_before_or_after_the_command() {
        for words in [["--log.level", "debug", "check"], ["check", "--log.level", "debug"]] {
            let typed = Typed::try_parse_from(["migscope"].iter().chain(&words)).expect("complete");
            assert_eq!(typed.log.level, Some(Level::Debug));
        }
    }
}
