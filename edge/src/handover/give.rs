//! The predecessor's side: a thread that waits for a successor.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::wire::{ANSWER_LIMIT, SERVE_LIMIT, VERSION, Word, hear, say, say_with, unexpected};
use super::{Handed, HandoverError, MAX_SOCKETS};

/// Stages that wait for the edge to act on them.
const MAX_WAITING_STAGES: usize = 4;

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
    listener: UnixListener,
    sockets: Vec<Handed>,
    process: u16,
}

impl Giver {
    /// Opens the socket at `path`, in place of what lies there: whoever starts has taken over already, or is alone.
    ///
    /// # Errors
    /// When it cannot be opened, or there are too many sockets.
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
        Ok(Self {
            path: path.to_owned(),
            listener,
            sockets,
            process,
        })
    }

    /// Waits on a thread of its own, for as long as the process lives or until a successor serves.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self) -> io::Result<mpsc::Receiver<Stage>> {
        let (stages, receiver) = mpsc::channel(MAX_WAITING_STAGES);
        thread::Builder::new()
            .name("edge-handover".to_owned())
            .spawn(move || self.run(&stages))?;
        Ok(receiver)
    }

    fn run(self, stages: &mpsc::Sender<Stage>) {
        for stream in self.listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            match self.give(&mut stream, stages) {
                Ok(()) => return forward(&mut stream, stages),
                Err(error) => {
                    tracing::warn!(
                        path = %self.path.display(),
                        error = &error as &dyn std::error::Error,
                        "handover failed; serving on"
                    );
                    if stages.blocking_send(Stage::Resume).is_err() {
                        return;
                    }
                }
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
        (
            addr,
            Giver::open(path, vec![handed], 7).unwrap().start().unwrap(),
        )
    }

    fn pause(stages: &mut mpsc::Receiver<Stage>) {
        match stages.blocking_recv() {
            Some(Stage::Pause(paused)) => paused.send(()).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_successor_gets_the_very_sockets_and_the_packets_go_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (addr, mut stages) = give(&path);
        // Waits in the queue of the socket while it changes hands.
        let _client = TcpStream::connect(addr).unwrap();
        let successor = thread::spawn(move || {
            let mut taken = take(&path).unwrap().unwrap();
            let socket = TcpListener::from(taken.remove(Purpose::Plain).remove(0));
            assert_eq!((socket.local_addr().unwrap(), taken.process), (addr, 7));
            let mut packets = taken.serving().unwrap();
            packets.send(addr, None, 3, b"packet").unwrap();
            socket.accept().unwrap();
        });
        pause(&mut stages);
        let Some(Stage::Drain(mut packets)) = stages.blocking_recv() else {
            unreachable!("a successor that serves makes us drain");
        };
        let packet = packets.blocking_recv().unwrap();
        assert_eq!(
            (packet.core, packet.packet.as_slice()),
            (3, b"packet".as_slice())
        );
        successor.join().unwrap();
    }

    #[test]
    fn a_successor_that_fails_changes_nothing_and_the_next_one_gets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (_, mut stages) = give(&path);
        for _ in 0..2 {
            let path = path.clone();
            let successor = thread::spawn(move || drop(take(&path).unwrap().unwrap()));
            pause(&mut stages);
            successor.join().unwrap();
            assert!(matches!(stages.blocking_recv(), Some(Stage::Resume)));
        }
    }

    #[test]
    fn nobody_there_is_no_error_and_a_stranger_gets_nothing() {
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(take(&path).unwrap().is_none());
        let (_, mut stages) = give(&path);
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.write_all(b"\0\0\0\x02hi").unwrap();
        assert!(matches!(stages.blocking_recv(), Some(Stage::Resume)));
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = stranger.read_to_end(&mut rest);
        assert!(rest.is_empty());
        drop(stages);
        let _ = UnixStream::connect(&path).map(drop);
    }
}
