//! When to end: a signal, the parent's death, or a test's word.

use std::io::{self, Read};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Tells every task of a process that it should end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Asks for the end.
#[derive(Debug)]
pub struct ShutdownHandle(watch::Sender<bool>);

impl ShutdownHandle {
    /// Asks every holder of the [`Shutdown`] to end.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// One that ends when its handle says so.
    #[must_use]
    pub fn manual() -> (Self, ShutdownHandle) {
        let (sender, receiver) = watch::channel(false);
        (Self(receiver), ShutdownHandle(sender))
    }

    /// One that is asked for while `asked` is true: for what may be allowed again.
    #[must_use]
    pub const fn when(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }

    /// One that ends on SIGTERM or SIGINT and, with `exit_with_parent`, when standard input closes:
    /// a supervisor that is killed takes its children along.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(exit_with_parent: bool) -> io::Result<Self> {
        let (shutdown, handle) = Self::manual();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let cause = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = parent_gone(), if exit_with_parent => "parent gone",
            };
            tracing::info!(cause, "shutdown requested");
            handle.request();
            // Held so that the channel stays open for as long as the process lives.
            std::future::pending::<()>().await;
        });
        Ok(shutdown)
    }

    /// Returns once the end was asked for.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means the handle is gone: nobody can ask any more, which is taken as being asked.
        let _ = receiver.wait_for(|asked| *asked).await;
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// Reads on a thread of its own: a read that never returns would keep a runtime's thread, and so the process, from ending.
async fn parent_gone() {
    let (closed, gone) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0; 1];
        while matches!(io::stdin().lock().read(&mut byte), Ok(1..)) {}
        // Nobody waits any more when the process ends for another reason.
        let _ = closed.send(());
    });
    // An error means the thread is gone, and with it the pipe.
    let _ = gone.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_the_request() {
        let (shutdown, handle) = Shutdown::manual();
        let clone = shutdown.clone();
        assert!(!clone.is_requested());
        handle.request();
        clone.requested().await;
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
