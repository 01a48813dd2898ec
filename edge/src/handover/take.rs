//! The successor's side.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wire::{ANSWER_LIMIT, VERSION, Word, hear, hear_with, say, unexpected};
use super::{Handed, HandoverError, Purpose};

/// The sockets of a predecessor, which waits to hear that they are served.
#[derive(Debug)]
pub struct Taken {
    stream: UnixStream,
    /// Its sockets.
    pub sockets: Vec<Handed>,
    /// Names it in the ids of its QUIC connections.
    pub process: u16,
}

/// Asks the predecessor at `path` for its sockets. None when there is no predecessor.
///
/// # Errors
/// When there is one that does not give them. It serves on then.
pub fn take(path: &Path) -> Result<Option<Taken>, HandoverError> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        // No socket, or one that a process left behind when it was killed.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(source) => {
            return Err(HandoverError::Open {
                path: path.to_owned(),
                source,
            });
        }
    };
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    say(&mut stream, &Word::Take { version: VERSION })?;
    let (word, sockets) = hear_with(&mut stream, ANSWER_LIMIT)?;
    let Word::Sockets { purposes, process } = word else {
        return Err(unexpected(&word, "sockets"));
    };
    Ok(Some(Taken {
        stream,
        sockets: named(purposes, sockets)?,
        process,
    }))
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
