//! DNS messages as bytes (RFC 1035, 4.1): just enough to forward them unchanged and to know an answer from a forgery.
//!
//! Pure. [`super::upstream`] forwards with it, [`super::query`] looks at what arrives with it. Offsets are those of the
//! twelve-byte header; nothing here allocates but [`failure`].

use hickory_proto::op::ResponseCode;

/// The header's length; anything shorter is not DNS.
pub const HEADER: usize = 12;
/// The response bit (QR) in the third byte.
const RESPONSE: u8 = 0x80;
/// The truncation bit (TC) in the third byte.
const TRUNCATED: u8 = 0x02;
/// Recursion desired (RD) in the third byte, and the operation's bits beside it.
const KEPT: u8 = 0x79;
/// Recursion available (RA) in the fourth byte.
const RECURSION: u8 = 0x80;

/// The message's id.
pub fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*message.first()?, *message.get(1)?]))
}

/// Puts another id in.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// Is it a response, not a query?
pub fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|b| b & RESPONSE != 0)
}

/// Has the sender cut it short?
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|b| b & TRUNCATED != 0)
}

/// The operation; 0 is a standard query.
pub fn operation(message: &[u8]) -> u8 {
    message.get(2).map_or(0, |b| b >> 3 & 0xF)
}

/// The one question: name, type and class. `None`: there is not exactly one, or it is malformed (a compressed name, too).
pub fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        match length {
            0 => break,
            1..=63 if at - HEADER < 255 => {}
            _ => return None,
        }
    }
    message.get(HEADER..at + 4)
}

/// Does the message answer this query: a response with its id and its question? Letter case may differ in names.
pub fn answers(message: &[u8], query: &[u8], expected: u16) -> bool {
    is_response(message)
        && id(message) == Some(expected)
        && match (question(message), question(query)) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        }
}

/// The answer that says only that there is none: the query's id and question with this code (0 to 15).
pub fn failure(query: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let mut answer = query.get(..HEADER)?.to_vec();
    answer[2] = answer[2] & KEPT | RESPONSE;
    answer[3] = RECURSION | code.low();
    let question = question(query).unwrap_or_default();
    answer[4..].copy_from_slice(&[0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    Some(answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::RecordType;
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.parse().unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    #[test]
    fn a_failure_is_an_answer() {
        let query = query("web.shop.svc.cluster.local.");
        let answer = failure(&query, ResponseCode::ServFail).unwrap();
        assert!(answers(&answer, &query, id(&query).unwrap()));
        let read = Message::from_vec(&answer).unwrap();
        assert_eq!(read.metadata.response_code, ResponseCode::ServFail);
        assert!(read.metadata.recursion_desired && read.queries.len() == 1);
        assert!(failure(&query[..11], ResponseCode::ServFail).is_none());
    }

    #[test]
    fn forgeries_do_not_answer() {
        let asked = query("web.shop.");
        let expected = id(&asked).unwrap();
        let answer = failure(&asked, ResponseCode::NoError).unwrap();
        assert!(!answers(&asked, &asked, expected), "a query is no answer");
        assert!(!answers(&answer, &asked, expected.wrapping_add(1)));
        assert!(!answers(&answer, &query("cart.shop."), expected));
        let shouted = [&answer[..HEADER], &answer[HEADER..].to_ascii_uppercase()].concat();
        assert!(answers(&shouted, &asked, expected));
    }

    #[test]
    fn questions_end_where_they_should() {
        let asked = query("a.b.");
        assert_eq!(question(&asked).unwrap(), &asked[HEADER..]);
        let mut compressed = asked.clone();
        compressed[HEADER] = 0xC0;
        assert!(question(&compressed).is_none());
        assert!(question(&asked[..asked.len() - 1]).is_none());
        let mut two = asked.clone();
        two[5] = 2;
        assert!(question(&two).is_none());
        let long = [&asked[..HEADER], &[1, b'a'].repeat(128), &[0, 0, 1, 0, 1]].concat();
        assert!(question(&long).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = bytes;
            set_id(&mut bytes, 7);
            let _ = (question(&bytes), answers(&bytes, &bytes, 7), operation(&bytes), is_truncated(&bytes));
            if let Some(answer) = failure(&bytes, ResponseCode::FormErr) {
                prop_assert!(is_response(&answer) && answer.len() <= bytes.len());
            }
        }
    }
}
