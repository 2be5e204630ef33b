// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The terminal: taken over while the view is shown, and given back however that ends.
//!
//! ```text
//!   enter ──▶ raw mode, other screen, no cursor ──▶ leave: by q, a signal, an error, a panic, and for as long as it is stopped
//! ```

use super::{
    model::Model,
    view::{self, theme::Theme},
};
use crossterm::{
    cursor, execute, queue,
    terminal::{
        BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
        LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::process::{Signal, getpid, getppid, getsid, kill_process};
use std::{
    io::{self, Stdout, Write as _, stdout},
    panic,
    process::exit,
    sync::Once,
    time::SystemTime,
};

/// Exit status after a panic, as Rust's own.
const PANICKED: i32 = 101;

/// The screen, taken over.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    ///
    /// When standard output is no terminal, or does not take commands.
    pub fn enter(theme: Theme) -> io::Result<Self> {
        give_back_on_panic();
        take()?;
        match Terminal::new(CrosstermBackend::new(stdout())) {
            Ok(terminal) => Ok(Self { terminal, theme }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws what is different from before.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn draw(&mut self, model: &Model) -> io::Result<()> {
        let theme = self.theme;
        // A terminal that knows it shows nothing until all of it is there.
        queue!(stdout(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| {
            let area = frame.area();
            view::render(model, SystemTime::now(), theme, area, frame.buffer_mut());
        })?;
        execute!(stdout(), EndSynchronizedUpdate)
    }

    /// Forgets what was drawn: the next time all of it is.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn clear(&mut self) -> io::Result<()> {
        // Not Terminal::clear, which asks the terminal where its cursor is: the thread that reads keys would get the answer.
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }

    /// The height in lines.
    pub fn height(&self) -> u16 {
        self.terminal.size().map_or(0, |size| size.height)
    }

    /// Gives the terminal back and stops this process, until it is to go on.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        if may_stop() {
            give_back();
            kill_process(getpid(), Signal::STOP)?;
        }
        self.take_again()
    }

    /// Takes the terminal over once more: a shell may have set it up for itself meanwhile.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn take_again(&mut self) -> io::Result<()> {
        // What raw mode goes back to is what is set now.
        disable_raw_mode()?;
        take()?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, cursor::Hide)
}

/// Best effort: there is nobody left to tell what failed.
fn give_back() {
    let _ = execute!(stdout(), EndSynchronizedUpdate, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

/// Whether somebody would wake this process: a shell of its own session. Where it is the only program of its terminal (`ssh -t`), to
/// stop would be to hang.
fn may_stop() -> bool {
    let session = |pid| getsid(pid).ok();
    let parent = getppid();
    parent.is_some() && session(parent).is_some_and(|of_parent| session(None) == Some(of_parent))
}

/// A panic is told on the ordinary screen, and ends the program: a view without the thread that died would show what never changes.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            tell(info);
            exit(PANICKED);
        }));
    });
}
