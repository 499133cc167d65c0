//! The second ClientHello of TLS 1.3: a server that wants another key asks for one (HelloRetryRequest, RFC 8446 4.1.4).
//! The entrance judges the first; a client may name another host in the second, though it must not (4.1.2). Whether
//! the node minds is seen by doing so, by hand: no library would.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::probe::{Preface, Way};
use crate::health::check::CheckError;

/// How long each answer may take.
const LIMIT: Duration = Duration::from_secs(4);
/// Records read for an answer: it may come behind a change of cipher specs.
const RECORDS: usize = 4;
/// The longest record (RFC 8446 5.2).
const LONGEST: usize = (1 << 14) + 256;

const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const COOKIE: u16 = 44;
const KEY_SHARE: u16 = 51;
const X25519: u16 = 29;
const SECP256R1: u16 = 23;

/// The random of a ServerHello that is a HelloRetryRequest: SHA-256 of that word (RFC 8446 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The generator of P-256 is a public key as good as any (SEC 2 2.4.2).
const P256: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40,
    0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2,
    0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e,
    0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51,
    0xf5,
];

/// What became of the second hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Second {
    /// The node goes on with the handshake.
    GoesOn,
    /// It ends the connection.
    Refused(String),
    /// It asked for none.
    NotAsked(String),
}

/// One answer of a node.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Retry { group: u16, cookie: Vec<u8> },
    Hello,
    Ended(String),
}

/// Sends a hello for `first` without a key, and, asked for one, a second for `second`.
pub async fn try_out(
    way: &Way,
    preface: Preface,
    first: &str,
    second: &str,
) -> Result<Second, CheckError> {
    let asking = async {
        let mut stream = way.open(preface, first).await?;
        let trying = try_on(&mut stream, first, second).await;
        trying.map_err(CheckError::Tls)
    };
    let tried = timeout(LIMIT, asking).await;
    tried.unwrap_or(Err(CheckError::Timeout(LIMIT)))
}

async fn try_on(stream: &mut TcpStream, first: &str, second: &str) -> io::Result<Second> {
    stream.write_all(&hello(first, &[], &[])).await?;
    let (group, cookie) = match answer(stream).await? {
        Answer::Retry { group, cookie } => (group, cookie),
        Answer::Hello => {
            return Ok(Second::NotAsked(String::from(
                "it takes a hello without a key",
            )));
        }
        Answer::Ended(how) => return Ok(Second::NotAsked(how)),
    };
    let key: &[u8] = match group {
        X25519 => &{
            // The base point, likewise (RFC 7748 4.1).
            let mut base = [0; 32];
            base[0] = 9;
            base
        },
        SECP256R1 => &P256,
        other => return Ok(Second::NotAsked(format!("it wants a key of group {other}"))),
    };
    let mut again = CHANGE_CIPHER_SPEC.to_vec();
    again.extend(hello(second, &share(group, key), &cookie));
    stream.write_all(&again).await?;
    Ok(match answer(stream).await? {
        Answer::Hello => Second::GoesOn,
        Answer::Retry { .. } => Second::Refused(String::from("it asks again")),
        Answer::Ended(how) => Second::Refused(how),
    })
}

/// Reads records until one says something.
async fn answer(stream: &mut TcpStream) -> io::Result<Answer> {
    for _ in 0..RECORDS {
        let mut header = [0; 5];
        if let Err(error) = stream.read_exact(&mut header).await {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    Ok(Answer::Ended(String::from("it closes the connection")))
                }
                _ => Err(error),
            };
        }
        let [kind, _, _, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST {
            break;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        match kind {
            HANDSHAKE => return Ok(read(&body).unwrap_or_else(|| unknown("a broken hello"))),
            ALERT => {
                let number = body.get(1).copied().unwrap_or_default();
                return Ok(Answer::Ended(format!("alert {number}{}", word(number))));
            }
            _ => {}
        }
    }
    Ok(unknown("something that is not TLS"))
}

fn unknown(what: &str) -> Answer {
    Answer::Ended(format!("it sends {what}"))
}

/// The alerts that servers use here (RFC 8446 6).
fn word(alert: u8) -> &'static str {
    match alert {
        40 => " (handshake_failure)",
        47 => " (illegal_parameter)",
        50 => " (decode_error)",
        70 => " (protocol_version)",
        109 => " (missing_extension)",
        112 => " (unrecognized_name)",
        _ => "",
    }
}

/// A ServerHello.
fn read(message: &[u8]) -> Option<Answer> {
    let (head, rest) = message.split_first_chunk::<6>()?;
    if head[0] != SERVER_HELLO {
        return None;
    }
    let (random, rest) = rest.split_first_chunk::<32>()?;
    if *random != RETRY {
        return Some(Answer::Hello);
    }
    let (session, rest) = rest.split_first()?;
    // Behind the session: cipher suite, compression, length of the extensions.
    let mut rest = rest.get(usize::from(*session) + 5..)?;
    let (mut group, mut cookie) = (0, Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..length)?;
        match kind {
            KEY_SHARE => group = u16::from_be_bytes(value.try_into().ok()?),
            COOKIE => cookie = value.to_vec(),
            _ => {}
        }
        rest = after.get(length..)?;
    }
    Some(Answer::Retry { group, cookie })
}

/// A ClientHello record with these key shares, and this cookie if there is one.
fn hello(name: &str, shares: &[u8], cookie: &[u8]) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut add = |kind: u16, value: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(with_length(value));
    };
    add(
        0,
        &with_length(&[&[0][..], &with_length(name.as_bytes())].concat()),
    );
    add(10, &with_length(&[0, 29, 0, 23]));
    add(
        13,
        &with_length(&[4, 3, 5, 3, 6, 3, 8, 7, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 6, 1]),
    );
    add(43, &[2, 3, 4]);
    add(45, &[1, 1]);
    if !cookie.is_empty() {
        add(COOKIE, cookie);
    }
    add(KEY_SHARE, &with_length(shares));
    let mut body = vec![3, 3];
    // Both hellos have the same; it protects nothing here.
    body.extend([0x46; 32]);
    body.push(32);
    body.extend([0x57; 32]);
    body.extend(with_length(&[0x13, 1, 0x13, 2, 0x13, 3]));
    body.extend([1, 0]);
    body.extend(with_length(&extensions));
    let mut message = vec![1, 0];
    message.extend(with_length(&body));
    // The version of a record that is not the first is 3.3 (RFC 8446 5.1), and some mind.
    let mut record = vec![HANDSHAKE, 3, if shares.is_empty() { 1 } else { 3 }];
    record.extend(with_length(&message));
    record
}

fn share(group: u16, key: &[u8]) -> Vec<u8> {
    [&group.to_be_bytes()[..], &with_length(key)].concat()
}

/// The bytes behind their length in two.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use rustls::server::Acceptor;

    use super::*;

    #[test]
    fn both_hellos_can_be_read() {
        let second = share(SECP256R1, &P256);
        for bytes in [
            hello("www.example.org", &[], &[]),
            hello("www.example.org", &second, &[0, 2, 7, 7]),
        ] {
            let mut acceptor = Acceptor::default();
            acceptor.read_tls(&mut bytes.as_slice()).unwrap();
            let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap();
            let accepted = accepted.expect("a whole hello");
            assert_eq!(
                accepted.client_hello().server_name(),
                Some("www.example.org")
            );
        }
    }

    #[test]
    fn a_retry_says_what_it_wants() {
        let mut message = vec![SERVER_HELLO, 0, 0, 0, 3, 3];
        message.extend(RETRY);
        message.extend([2, 9, 9, 0x13, 1, 0]);
        let extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23, 0, 44, 0, 3, 0, 1, 5];
        message.extend(with_length(&extensions));
        let expected = Answer::Retry {
            group: SECP256R1,
            cookie: vec![0, 1, 5],
        };
        assert_eq!(read(&message), Some(expected));
        message[10] ^= 1;
        assert_eq!(read(&message), Some(Answer::Hello));
        assert_eq!(read(&message[..20]), None);
    }
}
