//! How many connections there may be, in all and from one address.
//!
//! Shared by all cores. A permit counts one connection until it is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Limits;

/// Which limit a connection was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Total,
    Address,
}

impl Over {
    /// The metric's label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Caps {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Caps {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            total: limits.connections,
            per_address: limits.connections_per_address,
            open: Mutex::default(),
        })
    }

    /// Counts a connection from `address`, or says why it may not be.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Over> {
        let address = network(address);
        let mut open = self.open();
        if open.total >= self.total {
            return Err(Over::Total);
        }
        let from_address = open.by_address.entry(address).or_default();
        if *from_address >= self.per_address {
            return Err(Over::Address);
        }
        *from_address += 1;
        open.total += 1;
        Ok(Permit {
            caps: Arc::clone(self),
            address,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing in here can panic half-way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Permit {
    caps: Arc<Caps>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.caps.open();
        open.total -= 1;
        if let Some(from_address) = open.by_address.get_mut(&self.address) {
            *from_address -= 1;
            if *from_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, since that is what one customer gets.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(connections: usize, connections_per_address: usize) -> Arc<Caps> {
        Caps::new(&Limits {
            connections,
            connections_per_address,
            ..Limits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_limit_holds_until_a_permit_is_dropped() {
        let caps = caps(3, 2);
        let first = caps.admit(address("10.0.0.1")).unwrap();
        let _second = caps.admit(address("10.0.0.1")).unwrap();
        assert_eq!(caps.admit(address("10.0.0.1")).unwrap_err(), Over::Address);
        let _third = caps.admit(address("10.0.0.2")).unwrap();
        assert_eq!(caps.admit(address("10.0.0.3")).unwrap_err(), Over::Total);
        drop(first);
        assert!(caps.admit(address("10.0.0.1")).is_ok());
        assert!(caps.admit(address("::ffff:10.0.0.1")).is_ok());
    }

    #[test]
    fn one_ipv6_customer_is_one_address() {
        let caps = caps(9, 1);
        let permit = caps.admit(address("2001:db8::1")).unwrap();
        assert_eq!(
            caps.admit(address("2001:db8::ffff:2")).unwrap_err(),
            Over::Address
        );
        assert!(caps.admit(address("2001:db8:0:1::1")).is_ok());
        drop(permit);
        assert!(caps.open().by_address.is_empty());
    }
}
