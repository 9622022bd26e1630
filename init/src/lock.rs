//! One weft-init at a time in a network namespace.
//!
//! Abstract Unix socket names belong to a network namespace and vanish with their process, so one serves as a lock
//! that needs no file system and cannot be left behind. Taken by [`crate::apply`]; `iptables -w` guards against
//! other programs besides.

use crate::config::PATIENCE;
use crate::error::Error;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _socket: UnixListener,
}

impl Lock {
    /// Waits up to [`PATIENCE`], then fails with [`Error::Busy`].
    pub fn take() -> Result<Self, Error> {
        Self::take_within("weft-init", PATIENCE)
    }

    fn take_within(name: &str, patience: Duration) -> Result<Self, Error> {
        let address = SocketAddr::from_abstract_name(name).map_err(Error::io("naming the lock"))?;
        let deadline = Instant::now() + patience;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(Error::Io {
                        what: "taking the lock".to_owned(),
                        source: error,
                    });
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(Error::Busy {
                        seconds: patience.as_secs(),
                    });
                }
                Err(_) => sleep(POLL),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn excludes_others_until_dropped() {
        let name = format!("weft-init-test-{}", std::process::id());
        let first = Lock::take_within(&name, Duration::ZERO).unwrap();
        assert!(matches!(
            Lock::take_within(&name, Duration::from_millis(50)),
            Err(Error::Busy { .. })
        ));
        drop(first);
        Lock::take_within(&name, Duration::ZERO).unwrap();
    }
}
