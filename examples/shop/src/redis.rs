//! As much of a Redis client as carts need: RESP2 over one connection, made again after an error.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Used by [`crate::cart`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// From a command to its reply.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of one bulk string that are accepted.
const BULK_LIMIT: usize = 1 << 20;
/// Elements of one array that are accepted.
const ARRAY_LIMIT: usize = 10_000;

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `+OK`, or a bulk string.
    Text(String),
    /// `:5`.
    Integer(i64),
    /// An absent value.
    Nil,
    /// An array; those the shop asks for hold no arrays.
    Array(Vec<Value>),
}

/// Why a command gave no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection failed, or said what RESP does not allow.
    #[error("redis: {0}")]
    Io(#[from] io::Error),
    /// No reply in time.
    #[error("redis: no reply within {DEADLINE:?}")]
    Deadline,
    /// Redis refused the command.
    #[error("redis: {0}")]
    Refused(String),
}

/// A connection to one server. Commands wait for each other.
#[derive(Debug)]
pub(crate) struct Redis {
    address: String,
    connection: Mutex<Option<BufStream<TcpStream>>>,
}

impl Redis {
    /// `address` is `host:port`; the connection is made with the first command.
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            connection: Mutex::new(None),
        }
    }

    /// Sends one command and waits for its reply.
    pub(crate) async fn command(&self, words: &[&str]) -> Result<Value, Error> {
        let mut slot = self.connection.lock().await;
        // Taken out, so that a failure, a deadline or a dropped caller leaves no half-used connection behind.
        let pooled = slot.take();
        let exchange = async {
            let mut stream = match pooled {
                Some(stream) => stream,
                None => BufStream::new(TcpStream::connect(&self.address).await?),
            };
            stream.write_all(&encode(words)).await?;
            stream.flush().await?;
            let reply = read_value(&mut stream).await;
            Ok::<_, Error>((stream, reply))
        };
        let (stream, reply) = tokio::time::timeout(DEADLINE, exchange)
            .await
            .map_err(|_| Error::Deadline)??;
        if !matches!(reply, Err(Error::Io(_))) {
            *slot = Some(stream);
        }
        reply
    }
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    command
}

async fn read_value(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Value, Error> {
    let (kind, rest) = read_line(stream).await?;
    if kind != b'*' {
        return read_scalar(stream, kind, rest).await;
    }
    let length = rest.parse::<i64>().map_err(|_| malformed(&rest))?;
    if length < 0 {
        return Ok(Value::Nil);
    }
    let length = usize::try_from(length)
        .ok()
        .filter(|&l| l <= ARRAY_LIMIT)
        .ok_or(malformed(&rest))?;
    let mut values = Vec::with_capacity(length);
    for _ in 0..length {
        let (kind, rest) = read_line(stream).await?;
        values.push(read_scalar(stream, kind, rest).await?);
    }
    Ok(Value::Array(values))
}

async fn read_scalar(
    stream: &mut (impl AsyncBufRead + Unpin),
    kind: u8,
    rest: String,
) -> Result<Value, Error> {
    match kind {
        b'+' => Ok(Value::Text(rest)),
        b'-' => Err(Error::Refused(rest)),
        b':' => Ok(Value::Integer(rest.parse().map_err(|_| malformed(&rest))?)),
        b'$' if rest == "-1" => Ok(Value::Nil),
        b'$' => {
            let length = rest
                .parse::<usize>()
                .ok()
                .filter(|&l| l <= BULK_LIMIT)
                .ok_or(malformed(&rest))?;
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(length);
            Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Err(malformed(&rest).into()),
    }
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<(u8, String), io::Error> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let kind = line.as_bytes()[0];
    match line.strip_suffix("\r\n").and_then(|l| l.get(1..)) {
        Some(rest) => Ok((kind, rest.to_owned())),
        None => Err(malformed(&line)),
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {line:?}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(
            encode(&["DEL", "ü"]),
            "*2\r\n$3\r\nDEL\r\n$2\r\nü\r\n".as_bytes()
        );
    }

    #[tokio::test]
    async fn reads_every_kind_of_reply() {
        let cases = [
            ("+OK\r\n", Value::Text("OK".into())),
            (":-3\r\n", Value::Integer(-3)),
            ("$-1\r\n", Value::Nil),
            ("*-1\r\n", Value::Nil),
            ("$4\r\na\r\nb\r\n", Value::Text("a\r\nb".into())),
            (
                "*2\r\n$1\r\na\r\n:1\r\n",
                Value::Array(vec![Value::Text("a".into()), Value::Integer(1)]),
            ),
        ];
        for (wire, value) in cases {
            assert_eq!(
                read_value(&mut wire.as_bytes()).await.unwrap(),
                value,
                "{wire:?}"
            );
        }
        for wire in [
            "",
            "?\r\n",
            "+OK\n",
            "$x\r\n",
            "$9999999\r\n",
            "*99999\r\n",
            "$5\r\nab\r\n",
        ] {
            assert!(
                matches!(read_value(&mut wire.as_bytes()).await, Err(Error::Io(_))),
                "{wire:?}"
            );
        }
        let refused = read_value(&mut "-ERR no\r\n".as_bytes()).await;
        assert!(matches!(refused, Err(Error::Refused(reason)) if reason == "ERR no"));
    }
}
