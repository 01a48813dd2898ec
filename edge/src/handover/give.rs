//! The predecessor's side: waits for a successor.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::wire::{ANSWER_LIMIT, SERVE_LIMIT, VERSION, Word, hear, say, say_with, unexpected};
use super::{Handed, HandoverError, MAX_SOCKETS};
use crate::limits::ACCEPT_PAUSE;

/// Stages that wait for the edge to act on them.
pub const MAX_WAITING_STAGES: usize = 4;

/// What the edge has to do for a successor.
#[derive(Debug)]
pub enum Stage {
    /// Follow no records and write nothing any more, then answer.
    Pause(oneshot::Sender<()>),
    /// The successor failed: follow records again.
    Resume,
    /// The successor serves: drain and end. Packets of our QUIC connections come from it.
    Drain(mpsc::Receiver<Packet>),
}

/// A QUIC packet that the successor received for us.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where it came from.
    pub from: SocketAddr,
    /// Where it was sent to, if known.
    pub to: Option<IpAddr>,
    /// The core that has to read it.
    pub core: u8,
    /// The datagram.
    pub packet: Vec<u8>,
}

/// Packets on their way to their core. More are lost, as on the network.
const MAX_WAITING_PACKETS: usize = 1024;

/// Waits for successors.
#[derive(Debug)]
pub struct Giver {
    path: PathBuf,
    listener: tokio::net::UnixListener,
    sockets: Vec<Handed>,
    process: u16,
}

impl Giver {
    /// Opens the socket at `path`, in place of what lies there: whoever starts has taken over already, or is alone.
    ///
    /// # Errors
    /// When it cannot be opened, or there are too many sockets. To be called on a runtime.
    pub fn open(path: &Path, sockets: Vec<Handed>, process: u16) -> Result<Self, HandoverError> {
        let failed = |source| HandoverError::Open {
            path: path.to_owned(),
            source,
        };
        if sockets.len() > MAX_SOCKETS {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        let beside = path.with_extension(format!("{}", std::process::id()));
        let listener = UnixListener::bind(&beside).map_err(failed)?;
        // Whoever may connect may take the sockets.
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            sockets,
            process,
        })
    }

    /// Waits for a successor that comes to serve. Dropping this closes our part of the sockets.
    pub async fn run(self, stages: mpsc::Sender<Stage>) {
        let giver = Arc::new(self);
        loop {
            let stream = match giver
                .listener
                .accept()
                .await
                .and_then(|(stream, _)| waiting(stream))
            {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no successor could be heard"
                    );
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (this, to) = (Arc::clone(&giver), stages.clone());
            let given = tokio::task::spawn_blocking(move || this.attend(stream, &to)).await;
            if matches!(given, Ok(true)) || stages.is_closed() {
                return;
            }
        }
    }

    /// One successor, from its first word to its end. True when it serves.
    fn attend(&self, mut stream: UnixStream, stages: &mpsc::Sender<Stage>) -> bool {
        match self.give(&mut stream, stages) {
            Ok(()) => {
                forward(&mut stream, stages);
                true
            }
            Err(error) => {
                tracing::warn!(
                    path = %self.path.display(),
                    error = &error as &dyn std::error::Error,
                    "handover failed; serving on"
                );
                // An error means that nobody serves here any more.
                let _ = stages.blocking_send(Stage::Resume);
                false
            }
        }
    }

    /// Hands over, up to the word that the successor serves.
    fn give(
        &self,
        stream: &mut UnixStream,
        stages: &mpsc::Sender<Stage>,
    ) -> Result<(), HandoverError> {
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let word = hear(stream, ANSWER_LIMIT)?;
        if word != (Word::Take { version: VERSION }) {
            return Err(unexpected(&word, "take, of this version"));
        }
        let (paused, pausing) = oneshot::channel();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        stages
            .blocking_send(Stage::Pause(paused))
            .map_err(|_| gone(()))?;
        pausing.blocking_recv().map_err(|_| gone(()))?;
        let word = Word::Sockets {
            purposes: self.sockets.iter().map(|handed| handed.purpose).collect(),
            process: self.process,
        };
        let sockets: Vec<_> = self
            .sockets
            .iter()
            .map(|handed| handed.socket.as_fd())
            .collect();
        say_with(stream, &word, &sockets)?;
        let word = hear(stream, SERVE_LIMIT)?;
        if word == Word::Serving {
            Ok(())
        } else {
            Err(unexpected(&word, "serving"))
        }
    }
}

/// The stream for a thread that waits.
fn waiting(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Tells the edge to drain, and brings it the packets that come for it, until the successor ends.
fn forward(stream: &mut UnixStream, stages: &mpsc::Sender<Stage>) {
    let (packets, receiver) = mpsc::channel(MAX_WAITING_PACKETS);
    if stages.blocking_send(Stage::Drain(receiver)).is_err() {
        return;
    }
    if let Err(error) = say(stream, &Word::Draining) {
        // It serves all the same, only our QUIC connections lose their packets.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "successor is gone"
        );
        return;
    }
    // No limit: a successor without packets for us says nothing.
    let forever = std::time::Duration::from_secs(24 * 60 * 60);
    while let Ok(Word::Packet {
        from,
        to,
        core,
        packet,
    }) = hear(stream, forever)
    {
        let packet = Packet {
            from,
            to,
            core,
            packet,
        };
        if let Err(mpsc::error::TrySendError::Closed(_)) = packets.try_send(packet) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Purpose, take};
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn give(path: &Path) -> (SocketAddr, mpsc::Receiver<Stage>) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let handed = Handed {
            purpose: Purpose::Plain,
            socket: socket.into(),
        };
        let giver = Giver::open(path, vec![handed], 7).unwrap();
        let (stages, receiver) = mpsc::channel(MAX_WAITING_STAGES);
        tokio::spawn(giver.run(stages));
        (addr, receiver)
    }

    async fn pause(stages: &mut mpsc::Receiver<Stage>) {
        match stages.recv().await {
            Some(Stage::Pause(paused)) => paused.send(()).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_successor_gets_the_very_sockets_and_the_packets_go_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (addr, mut stages) = give(&path);
        // Waits in the queue of the socket while it changes hands.
        let _client = TcpStream::connect(addr).unwrap();
        let successor = tokio::task::spawn_blocking(move || {
            let mut taken = take(&path).unwrap().unwrap();
            let socket = TcpListener::from(taken.remove(Purpose::Plain).remove(0));
            assert_eq!((socket.local_addr().unwrap(), taken.process), (addr, 7));
            let mut packets = taken.serving().unwrap();
            packets.send(addr, None, 3, b"packet").unwrap();
            socket.accept().unwrap();
        });
        pause(&mut stages).await;
        let Some(Stage::Drain(mut packets)) = stages.recv().await else {
            unreachable!("a successor that serves makes us drain");
        };
        let packet = packets.recv().await.unwrap();
        assert_eq!(
            (packet.core, packet.packet.as_slice()),
            (3, b"packet".as_slice())
        );
        successor.await.unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_fails_changes_nothing_and_the_next_one_gets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (_, mut stages) = give(&path);
        for _ in 0..2 {
            let path = path.clone();
            let successor =
                tokio::task::spawn_blocking(move || drop(take(&path).unwrap().unwrap()));
            pause(&mut stages).await;
            successor.await.unwrap();
            assert!(matches!(stages.recv().await, Some(Stage::Resume)));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_no_error_and_a_stranger_gets_nothing() {
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(take(&path).unwrap().is_none());
        let (_, mut stages) = give(&path);
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.write_all(b"\0\0\0\x02hi").unwrap();
        assert!(matches!(stages.recv().await, Some(Stage::Resume)));
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = stranger.read_to_end(&mut rest);
        assert!(rest.is_empty());
        drop(stages);
        let _ = UnixStream::connect(&path).map(drop);
    }
}
