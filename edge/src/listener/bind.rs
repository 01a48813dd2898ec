//! Sockets to accept on, one per core, and what the process may open.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::{BACKLOG, Limits, RESERVED_DESCRIPTORS, UNSENT_BYTES};

/// One socket per core on the same address, which the kernel spreads connections over.
pub(super) fn sockets(
    addr: SocketAddr,
    cores: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let addr = claim(addr)?;
    let sockets = (0..cores)
        .map(|_| listening(addr))
        .collect::<io::Result<_>>()?;
    Ok((addr, sockets))
}

/// Makes sure that nobody else listens on `addr`, and picks a port for port 0.
///
/// With `SO_REUSEPORT` alone, a second edge started by mistake would silently take half of the connections.
fn claim(addr: SocketAddr) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn listening(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit on descriptors as far as it goes, and lowers `limits` to what it allows.
pub(super) fn within_descriptors(limits: Limits) -> Limits {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return limits;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let descriptors = usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX);
    let allowed = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    if allowed < limits.connections {
        tracing::warn!(
            from = limits.connections,
            to = allowed,
            descriptors,
            "connection limit lowered to the process limit"
        );
    }
    Limits {
        connections: limits.connections.min(allowed),
        ..limits
    }
}
