//! The sockets that an edge serves on: bound here, or handed over by the process before.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::{ListenError, ListenerConfig, bind};
use crate::handover::{Handed, Purpose, Taken};

/// One of each kind per core.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) plain: Vec<TcpListener>,
    pub(super) secure: Vec<TcpListener>,
    pub(super) quic: Vec<UdpSocket>,
}

impl Sockets {
    /// Those of `taken` that are bound to the addresses that `config` names; others are bound anew.
    ///
    /// # Errors
    /// When an address is taken by somebody else.
    pub fn open(
        config: &ListenerConfig,
        cores: usize,
        taken: Option<&mut Taken>,
    ) -> Result<Self, ListenError> {
        let mut sockets = taken.map_or_else(Self::default, Self::taken);
        sockets.keep(config);
        if sockets.plain.is_empty() {
            sockets.plain = bound(config.addr, cores)?;
        }
        // What was handed over decides the number: a socket that is closed loses what waits in it.
        let cores = sockets.plain.len();
        if let (true, Some(tls)) = (sockets.secure.is_empty(), &config.tls) {
            sockets.secure = bound(tls.addr, cores)?;
        }
        if let (true, Some(http3)) = (sockets.quic.is_empty(), &config.http3) {
            sockets.quic = http3.bind(cores)?;
        }
        Ok(sockets)
    }

    fn taken(taken: &mut Taken) -> Self {
        let mut these = |purpose| taken.remove(purpose).into_iter();
        Self {
            plain: these(Purpose::Plain).map(TcpListener::from).collect(),
            secure: these(Purpose::Secure).map(TcpListener::from).collect(),
            quic: these(Purpose::Quic).map(UdpSocket::from).collect(),
        }
    }

    /// Closes what `config` does not name.
    fn keep(&mut self, config: &ListenerConfig) {
        let tls = config.tls.as_ref().map(|tls| tls.addr);
        let http3 = config.http3.as_ref().map(|http3| http3.addr);
        self.plain
            .retain(|socket| is_bound_to(socket.local_addr(), Some(config.addr)));
        self.secure
            .retain(|socket| is_bound_to(socket.local_addr(), tls));
        self.quic
            .retain(|socket| is_bound_to(socket.local_addr(), http3));
    }

    /// The same sockets once more, for a successor.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn handed(&self) -> io::Result<Vec<Handed>> {
        let mut all = Vec::new();
        for socket in &self.plain {
            all.push((Purpose::Plain, socket.try_clone()?.into()));
        }
        for socket in &self.secure {
            all.push((Purpose::Secure, socket.try_clone()?.into()));
        }
        for socket in &self.quic {
            all.push((Purpose::Quic, socket.try_clone()?.into()));
        }
        let handed = all
            .into_iter()
            .map(|(purpose, socket)| Handed { purpose, socket });
        Ok(handed.collect())
    }
}

fn bound(addr: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, ListenError> {
    bind::sockets(addr, cores)
        .map(|(_, sockets)| sockets)
        .map_err(|source| ListenError::Bind { addr, source })
}

/// Port 0 is any port.
fn is_bound_to(local: io::Result<SocketAddr>, wanted: Option<SocketAddr>) -> bool {
    match (local, wanted) {
        (Ok(local), Some(wanted)) => {
            local.ip() == wanted.ip() && (wanted.port() == 0 || local.port() == wanted.port())
        }
        _ => false,
    }
}
