//! Reads the server name and the protocols out of a TLS client hello (RFC 8446, 4.1.2), without any cryptography.
//!
//! Called by [`super::sniff`]. The hello may be spread over several records (RFC 8446, 5.1): with a post-quantum key share
//! it is larger than one packet.

/// Content type of a handshake record.
pub const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// RFC 8446, 5.1: "The length MUST NOT exceed 2^14 bytes".
const MAX_RECORD: usize = 1 << 14;
/// The longest hello that is read, in bytes; real ones have some hundred to 2,000.
const MAX_HELLO: usize = 1 << 16;

/// What a hello says about where it wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The host name of `server_name` (RFC 6066, 3), in lower case.
    pub server_name: Option<String>,
    /// The protocols of `application_layer_protocol_negotiation` (RFC 7301), in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// Is it a hello of this mesh's own proxies?
    pub fn is_mesh(&self) -> bool {
        self.alpn.iter().any(|p| p.starts_with(b"weft/"))
    }
}

/// The bytes are something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TLS client hello")]
pub struct NotAHello;

/// Reads a hello from the beginning of a connection. `None`: it is not complete yet.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, NotAHello> {
    let Some(message) = handshake_message(bytes)? else {
        return Ok(None);
    };
    hello(&message).map(Some).ok_or(NotAHello)
}

/// The body of the first handshake message, put together from its records.
fn handshake_message(bytes: &[u8]) -> Result<Option<Vec<u8>>, NotAHello> {
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        // Judge each header byte as soon as it is there: other protocols get their answer early.
        if rest.first().is_some_and(|t| *t != HANDSHAKE_RECORD)
            || rest.get(1).is_some_and(|v| *v != 3)
        {
            return Err(NotAHello);
        }
        let [_, _, _, high, low, body @ ..] = rest else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > MAX_RECORD {
            return Err(NotAHello);
        }
        message.extend_from_slice(&body[..length.min(body.len())]);
        if message.first().is_some_and(|t| *t != CLIENT_HELLO) {
            return Err(NotAHello);
        }
        if let [_, a, b, c, ..] = message.as_slice() {
            let wanted = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if wanted > MAX_HELLO {
                return Err(NotAHello);
            }
            if message.len() >= 4 + wanted {
                message.truncate(4 + wanted);
                message.drain(..4);
                return Ok(Some(message));
            }
        }
        if body.len() < length {
            return Ok(None);
        }
        rest = &body[length..];
    }
}

/// `None`: malformed.
fn hello(message: &[u8]) -> Option<ClientHello> {
    let mut input = Input(message);
    input.take(2 + 32)?; // legacy_version, random
    input.vector8()?; // legacy_session_id
    input.vector16()?; // cipher_suites
    input.vector8()?; // legacy_compression_methods
    let mut found = ClientHello::default();
    if input.0.is_empty() {
        return Some(found); // TLS 1.2 without extensions
    }
    let mut extensions = input.vector16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut body = extensions.vector16()?;
        match kind {
            SERVER_NAME => found.server_name = server_name(body.vector16()?)?,
            ALPN => {
                let mut names = body.vector16()?;
                while !names.0.is_empty() {
                    found.alpn.push(names.vector8()?.0.to_vec());
                }
            }
            _ => {}
        }
    }
    Some(found)
}

/// The outer option: malformed. The inner: no host name in it.
#[allow(clippy::option_option)]
fn server_name(mut names: Input<'_>) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        if kind == HOST_NAME {
            let text = std::str::from_utf8(name.0).ok()?;
            return Some(text.is_ascii().then(|| text.to_ascii_lowercase()));
        }
    }
    Some(None)
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vector8(&mut self) -> Option<Self> {
        let length = self.take(1)?[0];
        self.take(length.into()).map(Self)
    }

    fn vector16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A hello as rustls writes it.
    pub(crate) fn hello_of(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of at most `size` bytes.
    fn split(record: &[u8], size: usize) -> Vec<u8> {
        record[5..]
            .chunks(size)
            .flat_map(|c| [&[22, 3, 1][..], &(c.len() as u16).to_be_bytes(), c].concat())
            .collect()
    }

    #[test]
    fn names_and_protocols_are_read_from_any_split() {
        let bytes = hello_of("Shop.Example", &[b"weft/h1", b"h2"]);
        let wanted = ClientHello {
            server_name: Some("shop.example".into()),
            alpn: vec![b"weft/h1".to_vec(), b"h2".to_vec()],
        };
        assert_eq!(parse(&bytes), Ok(Some(wanted.clone())));
        assert!(wanted.is_mesh());
        for size in [1, 7, 100] {
            assert_eq!(parse(&split(&bytes, size)), Ok(Some(wanted.clone())));
        }
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn other_records_are_not_hellos() {
        for bytes in [
            &b"\x15\x03\x01"[..],
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x04\x02",
        ] {
            assert_eq!(parse(bytes), Err(NotAHello), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..2000, with in any::<u8>(), size in 1usize..300) {
            let mut bytes = split(&hello_of("a.example", &[b"h2"]), size);
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = parse(&bytes);
        }
    }
}
