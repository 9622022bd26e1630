//! As much of a PostgreSQL client as orders need: the simple query protocol, no password, no TLS, one connection made
//! again after an error.
//!
//! <https://www.postgresql.org/docs/15/protocol-flow.html>. Used by [`crate::payments`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// From a statement to its end.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of one message that are accepted.
const MESSAGE_LIMIT: usize = 1 << 20;
/// Protocol 3.0, the first word of a startup message.
const PROTOCOL: u32 = 3 << 16;

/// Why a statement was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection failed, or said what the protocol does not allow.
    #[error("postgresql: {0}")]
    Io(#[from] io::Error),
    /// No end of the statement in time.
    #[error("postgresql: no answer within {DEADLINE:?}")]
    Deadline,
    /// The server refused it: its message, without the other fields.
    #[error("postgresql: {0}")]
    Refused(String),
    /// The server wants a password, which this client has not.
    #[error("postgresql: asks for a password; expected `trust` in pg_hba.conf")]
    Password,
}

/// A connection to one database. Statements wait for each other.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: String,
    user: String,
    connection: Mutex<Option<BufStream<TcpStream>>>,
}

impl Postgres {
    /// `address` is `host:port`; user and database have the same name. The connection is made with the first statement.
    pub(crate) fn new(address: String, user: String) -> Self {
        Self {
            address,
            user,
            connection: Mutex::new(None),
        }
    }

    /// Carries out one or more statements; their rows, if any, are dropped.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Error> {
        let mut slot = self.connection.lock().await;
        // Taken out, so that a failure, a deadline or a dropped caller leaves no half-used connection behind.
        let pooled = slot.take();
        let exchange = async {
            let mut stream = match pooled {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            stream.write_all(&query(sql)).await?;
            stream.flush().await?;
            let outcome = until_ready(&mut stream).await;
            Ok::<_, Error>((stream, outcome))
        };
        let (stream, outcome) = tokio::time::timeout(DEADLINE, exchange)
            .await
            .map_err(|_| Error::Deadline)??;
        if matches!(outcome, Ok(()) | Err(Error::Refused(_))) {
            *slot = Some(stream);
        }
        outcome
    }

    async fn connect(&self) -> Result<BufStream<TcpStream>, Error> {
        let mut stream = BufStream::new(TcpStream::connect(&self.address).await?);
        stream.write_all(&startup(&self.user)).await?;
        stream.flush().await?;
        until_ready(&mut stream).await?;
        Ok(stream)
    }
}

fn startup(user: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    body.extend_from_slice(format!("user\0{user}\0database\0{user}\0\0").as_bytes());
    with_length(&body)
}

fn query(sql: &str) -> Vec<u8> {
    let mut message = vec![b'Q'];
    message.extend_from_slice(&with_length(format!("{sql}\0").as_bytes()));
    message
}

/// A body after its length, which counts itself.
fn with_length(body: &[u8]) -> Vec<u8> {
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

/// Reads up to ReadyForQuery. A fatal error has none after it: then the connection ends, and the error is given.
async fn until_ready(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let mut refused = None;
    loop {
        let (kind, body) = match read_message(stream).await {
            Ok(message) => message,
            Err(error) => return Err(refused.unwrap_or(Error::Io(error))),
        };
        match kind {
            b'Z' => return refused.map_or(Ok(()), Err),
            b'E' => refused = Some(Error::Refused(error_message(&body))),
            b'R' if body != [0; 4] => return Err(Error::Password),
            _ => {}
        }
    }
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    if !(4..=MESSAGE_LIMIT).contains(&length) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes"),
        ));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The field `M` of an ErrorResponse: fields are a letter and a text, each ended by a zero byte.
fn error_message(body: &[u8]) -> String {
    body.split(|&b| b == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map_or_else(
            || "an error without a message".into(),
            |m| String::from_utf8_lossy(m).into_owned(),
        )
}

/// A text as an SQL literal. Zero bytes, which PostgreSQL does not store, are left out.
pub(crate) fn literal(text: &str) -> String {
    // With a backslash an E'' string is needed whatever `standard_conforming_strings` says.
    format!(
        "E'{}'",
        text.replace('\0', "")
            .replace('\\', "\\\\")
            .replace('\'', "''")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn literals_hold_anything() {
        assert_eq!(literal("o'clock\\n\0"), r"E'o''clock\\n'");
    }

    #[tokio::test]
    async fn reads_to_the_end_of_the_statement() {
        let ready = [b'Z', 0, 0, 0, 5, b'I'];
        let error = [&[b'E', 0, 0, 0, 14][..], b"SERROR\0Mno\0"].concat();
        let mut ok: Vec<u8> = [&[b'R', 0, 0, 0, 8, 0, 0, 0, 0][..], &ready].concat();
        until_ready(&mut ok.as_slice()).await.unwrap();
        ok[8] = 5;
        assert!(matches!(
            until_ready(&mut ok.as_slice()).await,
            Err(Error::Password)
        ));
        let refused = [
            &error[..1],
            &16u32.to_be_bytes()[..],
            &error[5..],
            &[0],
            &ready,
        ]
        .concat();
        for wire in [&refused[..], &refused[..refused.len() - ready.len()]] {
            let outcome = until_ready(&mut &*wire).await;
            assert!(
                matches!(&outcome, Err(Error::Refused(m)) if m == "no"),
                "{outcome:?}"
            );
        }
        assert!(matches!(
            until_ready(&mut [b'Z', 0, 0, 0, 1].as_slice()).await,
            Err(Error::Io(_))
        ));
    }
}
