//! What do the first bytes of a connection say? Pure functions over a prefix of the stream.
//!
//! [`crate::detect`] feeds them with what has arrived so far. [`hello`] reads the TLS hello. Both are fuzzed: any input
//! gives an answer, and more bytes never turn a definite answer into another one.

pub mod hello;

pub use hello::ClientHello;

/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest request line that is waited for, in bytes. nginx allows 8 KiB; twice that is certainly not HTTP.
pub const MAX_REQUEST_LINE: usize = 16 * 1024;

/// What a connection speaks, as far as its first bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few bytes to tell.
    More,
    /// A request line of HTTP/1.0 or HTTP/1.1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// A whole TLS hello.
    Tls(ClientHello),
    /// Something else.
    Other,
}

/// Judges the first bytes of a connection.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes.first() {
        None => Sniffed::More,
        Some(&hello::HANDSHAKE_RECORD) => match hello::parse(bytes) {
            Ok(Some(hello)) => Sniffed::Tls(hello),
            Ok(None) => Sniffed::More,
            Err(hello::NotAHello) => Sniffed::Other,
        },
        Some(_) if bytes.starts_with(H2_PREFACE) => Sniffed::Http2,
        Some(_) if H2_PREFACE.starts_with(bytes) => Sniffed::More,
        Some(_) => request_line(bytes),
    }
}

/// `method SP request-target SP HTTP/1.x CRLF` (RFC 9112, 3). The version at its end tells HTTP from the other text
/// protocols in which the client speaks first (`EHLO mail`, `PING`, `get key`).
fn request_line(bytes: &[u8]) -> Sniffed {
    let method = bytes.iter().take_while(|b| is_token(**b)).count();
    // The longest registered method has 17 letters (UPDATEREDIRECTREF).
    if method > 32 {
        return Sniffed::Other;
    }
    match bytes.get(method) {
        None => return Sniffed::More,
        Some(b' ') if method > 0 => {}
        Some(_) => return Sniffed::Other,
    }
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    // The same for a whole line as for a part of one: what is decided must not depend on how the bytes arrive.
    let text = line.iter().all(|b| *b >= b' ' || *b == b'\r');
    if !text || line.len() >= MAX_REQUEST_LINE {
        return Sniffed::Other;
    }
    if end.is_none() {
        return Sniffed::More;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
        Sniffed::Http1
    } else {
        Sniffed::Other
    }
}

/// RFC 9110, 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, wanted) in [
            (&b""[..], Sniffed::More),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http1),
            (b"GET / HTTP/1.0\n", Sniffed::Http1),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n", Sniffed::Http1),
            (b"GET /long", Sniffed::More),
            (b"PRI * HT", Sniffed::More),
            (H2_PREFACE, Sniffed::Http2),
            (b"PRI * HTTP/1.1\r\n", Sniffed::Http1),
            (b"EHLO mail.example\r\n", Sniffed::Other),
            (b"PING\r\n", Sniffed::Other),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Other),
            (b"get key\r\n", Sniffed::Other),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Sniffed::Other),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Sniffed::Other),
            (b"\x16\x03\x01", Sniffed::More),
            (b"\x16GET", Sniffed::Other),
            (b"GET /\x17", Sniffed::Other),
            (b"GET /\x17 HTTP/1.1\r\n", Sniffed::Other),
        ] {
            assert_eq!(sniff(bytes), wanted, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_endless_line_is_not_http() {
        let mut line = b"GET /".to_vec();
        line.resize(MAX_REQUEST_LINE, b'a');
        assert_eq!(sniff(&line), Sniffed::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer_that_stays(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let early = sniff(&bytes[..cut.min(bytes.len())]);
            if early != Sniffed::More {
                prop_assert_eq!(early, sniff(&bytes));
            }
        }

        #[test]
        fn text_gives_an_answer_that_stays(text in "(GET|PRI|EHLO|X)( [ -~]{0,12}){0,3}(\r\n[ -~]{0,5}){0,3}", cut in 0usize..60) {
            let bytes = text.as_bytes();
            let early = sniff(&bytes[..cut.min(bytes.len())]);
            if early != Sniffed::More {
                prop_assert_eq!(early, sniff(bytes));
            }
        }
    }
}
