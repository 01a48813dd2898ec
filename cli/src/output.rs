//! The two streams of a command, and progress on a terminal.
//!
//! Standard output carries results alone. All else goes to standard error, redrawn in place on a
//! terminal and as plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Redraws per second: smooth to the eye, nothing to a slow link.
const REDRAWS: u8 = 15;
/// How often a display that nothing happens on is redrawn, for its clock.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A line for a person.
pub(crate) fn say(text: &str) {
    // With standard error gone there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// A line of the result.
pub(crate) fn print(text: &str) {
    // A reader that has read enough closes the pipe, which is no failure of the command.
    let _ = writeln!(io::stdout().lock(), "{}", printable(text));
}

/// The result for a program.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(value)?);
    Ok(())
}

/// Whether a person watches standard error.
pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Text from elsewhere cannot move the cursor or recolour the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// A bar that counts bytes.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows a bar for `total` bytes of `what`; nothing outside a terminal.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target());
        let style =
            ProgressStyle::with_template("{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}");
        bar.set_style(
            style
                .expect("the template is a constant that parses")
                .progress_chars("=> "),
        );
        bar.set_message(what);
        Self(bar)
    }
}

impl helix_client::upload::Progress for Progress {
    fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Several lines that are redrawn in place.
#[derive(Debug)]
pub(crate) struct Lines(ProgressBar);

impl Lines {
    /// An empty display.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        bar.set_style(
            ProgressStyle::with_template("{msg}").expect("the template is a constant that parses"),
        );
        Self(bar)
    }

    /// Shows `text` in place of what was there.
    pub(crate) fn show(&self, text: &str) {
        self.0.set_message(printable(text));
        self.0.tick();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if on_terminal() {
        ProgressDrawTarget::stderr_with_hz(REDRAWS)
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// A number of bytes for a person.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A span for a person, to a hundredth of a second.
pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\r"), "a\u{fffd}[2Jb\nc\u{fffd}");
    }
}
