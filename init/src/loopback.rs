//! The sidecar's inbound source address for IPv6 on `lo`, by rtnetlink(7).
//!
//! Called by [`crate::apply`]. IPv4 needs nothing, all of 127.0.0.0/8 is local. Two messages do not justify a
//! dependency on `ip` in the image.

use crate::INBOUND_SOURCE_V6;
use crate::error::Error;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::os::fd::AsRawFd;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_F_NODAD: u8 = 0x02;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
const FOREVER: u32 = u32::MAX;
const EADDRNOTAVAIL: i32 = 99;

/// Puts [`INBOUND_SOURCE_V6`] on `lo`; it may be there already. It gets a preferred lifetime of zero, so that
/// source address selection (RFC 6724, rule 3) never picks it for anyone who does not bind it.
pub fn add() -> Result<(), Error> {
    let mut attributes = attribute(IFA_LOCAL, &INBOUND_SOURCE_V6.octets());
    attributes.extend(attribute(IFA_ADDRESS, &INBOUND_SOURCE_V6.octets()));
    let lifetimes: Vec<u8> = [0, FOREVER, 0, 0]
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect();
    attributes.extend(attribute(IFA_CACHEINFO, &lifetimes));
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &attributes)
        .map_err(Error::io(format!("adding {INBOUND_SOURCE_V6} to lo (IPv6 may be disabled there: sysctl net.ipv6.conf.lo.disable_ipv6=0, or --ipv6 off)")))
}

/// Takes it off again; it need not be there.
pub fn remove() -> Result<(), Error> {
    match request(
        RTM_DELADDR,
        0,
        &attribute(IFA_LOCAL, &INBOUND_SOURCE_V6.octets()),
    ) {
        Err(error) if error.raw_os_error() == Some(EADDRNOTAVAIL) => Ok(()),
        other => other.map_err(Error::io(format!("removing {INBOUND_SOURCE_V6} from lo"))),
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn request(kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex("lo")?;
    let mut message = Vec::new();
    message.extend(((HEADER + 8 + attributes.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence number and sender, of no use for one request
    message.extend([AF_INET6, 128, IFA_F_NODAD, 0]); // struct ifaddrmsg: family, prefix, flags, scope
    message.extend(index.to_ne_bytes());
    message.extend(attributes);
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(
        socket.as_raw_fd(),
        &message,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut answer = [0u8; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// Reads a `struct nlmsgerr`: a negated errno after the header, 0 for success.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "unexpected netlink answer");
    let kind: [u8; 2] = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(bad)?;
    let code: [u8; 4] = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(bad)?;
    match (u16::from_ne_bytes(kind), i32::from_ne_bytes(code)) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, code) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_kernel() {
        let answer = |code: i32| {
            let mut bytes = vec![0u8; HEADER];
            bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(acknowledged(&answer(0)).is_ok());
        assert_eq!(
            acknowledged(&answer(-1)).map_err(|error| error.raw_os_error()),
            Err(Some(1))
        );
        assert!(acknowledged(&[]).is_err());
    }
}
