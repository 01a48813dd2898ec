//! The successor's side.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{ANSWER_LIMIT, VERSION, Word, hear, hear_with, say, unexpected};
use super::{Handed, HandoverError, Purpose};

/// How long a predecessor that hangs up may take to end. One that was killed takes connections into its queue until its memory has been
/// freed, which is a second with a million hosts, and resets them then.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// The sockets of a predecessor, which waits to hear that they are served.
#[derive(Debug)]
pub struct Taken {
    stream: UnixStream,
    /// Its sockets.
    pub sockets: Vec<Handed>,
    /// Names it in the ids of its QUIC connections.
    pub process: u16,
}

/// Asks the predecessor at `path` for its sockets. None when there is no predecessor, or when it ends before it gave them.
///
/// # Errors
/// When there is one that does not give them. It serves on then.
pub fn take(path: &Path) -> Result<Option<Taken>, HandoverError> {
    take_within(path, ENDING_LIMIT)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it has a thread that waits for the other process anyway"
)]
fn take_within(path: &Path, limit: Duration) -> Result<Option<Taken>, HandoverError> {
    let until = Instant::now() + limit;
    loop {
        let Some(stream) = connect(path)? else {
            return Ok(None);
        };
        match ask(stream) {
            Ok(taken) => return Ok(Some(taken)),
            Err(HandoverError::Talk(error)) if hung_up(&error) && Instant::now() < until => {
                tracing::info!(
                    path = %path.display(),
                    error = &error as &dyn std::error::Error,
                    "the process before hung up; looking whether it ends"
                );
                thread::sleep(ENDING_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The predecessor, if somebody listens.
fn connect(path: &Path) -> Result<Option<UnixStream>, HandoverError> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        // No socket, or one that a process left behind when it was killed.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(HandoverError::Open {
            path: path.to_owned(),
            source,
        }),
    }
}

fn ask(mut stream: UnixStream) -> Result<Taken, HandoverError> {
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    say(&mut stream, &Word::Take { version: VERSION })?;
    let (word, sockets) = hear_with(&mut stream, ANSWER_LIMIT)?;
    let Word::Sockets { purposes, process } = word else {
        return Err(unexpected(&word, "sockets"));
    };
    Ok(Taken {
        stream,
        sockets: named(purposes, sockets)?,
        process,
    })
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

fn named(purposes: Vec<Purpose>, sockets: Vec<OwnedFd>) -> Result<Vec<Handed>, HandoverError> {
    if purposes.len() != sockets.len() {
        return Err(HandoverError::Count {
            named: purposes.len(),
            sent: sockets.len(),
        });
    }
    let handed = purposes.into_iter().zip(sockets);
    Ok(handed
        .map(|(purpose, socket)| Handed { purpose, socket })
        .collect())
}

impl Taken {
    /// The sockets for `purpose`, in order.
    pub fn remove(&mut self, purpose: Purpose) -> Vec<OwnedFd> {
        let (these, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|handed: &Handed| handed.purpose == purpose);
        self.sockets = others;
        let these: Vec<Handed> = these;
        these.into_iter().map(|handed| handed.socket).collect()
    }

    /// Tells the predecessor that its sockets are served here: it drains from now on. What is returned takes its
    /// QUIC packets.
    ///
    /// # Errors
    /// When it is gone. Its sockets are ours all the same.
    pub fn serving(mut self) -> Result<Packets, HandoverError> {
        say(&mut self.stream, &Word::Serving)?;
        let word = hear(&mut self.stream, ANSWER_LIMIT)?;
        if word != Word::Draining {
            return Err(unexpected(&word, "draining"));
        }
        Ok(Packets {
            stream: self.stream,
        })
    }
}

/// Takes packets to the predecessor while it drains.
#[derive(Debug)]
pub struct Packets {
    stream: UnixStream,
}

impl Packets {
    /// Sends a packet on.
    ///
    /// # Errors
    /// When the predecessor has ended.
    pub fn send(
        &mut self,
        from: std::net::SocketAddr,
        to: Option<std::net::IpAddr>,
        core: u8,
        packet: &[u8],
    ) -> Result<(), HandoverError> {
        let packet = packet.to_vec();
        say(
            &mut self.stream,
            &Word::Packet {
                from,
                to,
                core,
                packet,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_comes_while_the_process_before_is_killed_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let successor = thread::spawn(move || take(&path));
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        drop(stream);
        assert!(successor.join().unwrap().unwrap().is_none());
    }

    #[test]
    fn a_process_that_hangs_up_and_goes_on_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        let error = take_within(&path, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, HandoverError::Talk(_)), "{error}");
    }
}
