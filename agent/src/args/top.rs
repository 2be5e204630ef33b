// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope top`.

use crate::{
    host::Paths,
    top::{
        self, Form,
        source::{self, AgentAddress},
        view::theme::Theme,
    },
};
use clap::Args;
use std::{
    env,
    error::Error,
    io::{IsTerminal as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Where an agent listens that was started without flags.
const DEFAULT_AGENT: &str = "http://127.0.0.1:10477";
/// Least time between two questions.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// Shows devices and their migrations live, on the terminal.
///
/// The data comes from an agent. Where none listens on this host and none is named, and this process may load BPF programs, it comes
/// from probes of its own; the header says which.
///
/// Keys are those of htop: arrows, Enter for the page of a device, F5 for machines, F6 for the order, / for a filter, p to pause, space
/// to tag, h for help, q to quit. NO_COLOR takes the colours away.
///
/// Without a terminal, and with --plain, it writes a line of KEY=VALUE pairs for each device that has changed; `?` is unknown. --json
/// writes what the agent says, an object a line. In the first line of a device, rates are unknown: they are seen between two
/// answers.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// The agent to ask, http:// or https://, instead of one on this host [http://127.0.0.1:10477]; no proxy is used.
    #[arg(long = "agent", value_name = "URL")]
    agent: Option<String>,
    /// Certificates (PEM) of the authorities to trust, instead of the host's.
    #[arg(long = "agent.ca-file", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// User to ask as (HTTP basic authentication; the password is in clear unless the agent is asked by https).
    #[arg(long = "agent.user", value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// File with that user's password; a newline at its end is not part of it.
    #[arg(long = "agent.password-file", value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// How often to ask.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = interval)]
    interval: Duration,
    /// Write lines, on a terminal too.
    #[arg(long)]
    plain: bool,
    /// Write what the agent says, one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Ask once, write lines, and end.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Ask so many times, write lines, and end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Flags {
    fn wants_lines(&self) -> bool {
        self.plain
            || self.json
            || self.once
            || self.count.is_some()
            || !stdout().is_terminal()
            || is_dumb()
    }

    /// Whether a log would be written across the view.
    pub(super) fn hides_the_log(&self) -> bool {
        !self.wants_lines() && stderr().is_terminal()
    }
}

/// Whether the terminal takes no commands.
fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Shows the view, or writes lines.
pub(super) fn run(flags: Flags, paths: Paths) -> Result<ExitCode, Box<dyn Error>> {
    let lines = flags.wants_lines();
    let Flags { agent, ca_file, user, password_file, interval, json, once, count, .. } = flags;
    let named = agent.is_some();
    let url = agent.unwrap_or_else(|| DEFAULT_AGENT.into());
    let address = AgentAddress { url, ca_file, user: user.zip(password_file) };
    let source = source::choose(&address, named, paths)?;
    if lines {
        let form = if json { Form::Json } else { Form::Plain };
        let count = if once { Some(1) } else { count };
        top::as_lines(source, interval, form, count, &mut stdout().lock())?;
    } else {
        let theme = Theme::for_no_color(env::var_os("NO_COLOR").as_deref());
        top::on_terminal(source, interval, theme)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST_INTERVAL {
        return Err(format!("at least {}", humantime::format_duration(LEAST_INTERVAL)));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};
    use clap::Parser as _;

    fn top_flags(words: &[&str]) -> Result<Flags, clap::Error> {
        let typed = Typed::try_parse_from(["migscope", "top"].iter().chain(words))?;
        match typed.command {
            Command::Top(flags) => Ok(flags),
            other => panic!("top was typed, not {other:?}"),
        }
    }

    #[test]
    fn it_asks_twice_a_second_and_never_in_a_loop() {
        assert_eq!(top_flags(&[]).expect("complete").interval, Duration::from_millis(500));
        assert!(top_flags(&["--interval", "1ms"]).is_err());
        assert!(top_flags(&["--interval", "2s"]).is_ok());
    }

    #[test]
    fn a_user_has_a_password_and_once_is_no_number() {
        assert!(top_flags(&["--agent.user", "me"]).is_err());
        assert!(top_flags(&["--agent.password-file", "f"]).is_err());
        assert!(top_flags(&["--once", "--count", "2"]).is_err());
        assert!(top_flags(&["--count", "0"]).is_err());
    }

    #[test]
    fn whatever_ends_by_itself_writes_lines() {
        for words in [&["--once"][..], &["--count", "3"], &["--json"], &["--plain"]] {
            assert!(top_flags(words).expect("complete").wants_lines(), "{words:?}");
        }
    }
}
