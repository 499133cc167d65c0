//! Other readers of ClientHellos, to compare with.

use rustls::server::Acceptor;
use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, TlsRecordType,
    parse_tls_client_hello_extension, parse_tls_message_handshake, parse_tls_raw_record,
};

/// Every name that `tls-parser` finds in the hello a stream begins with, in
/// lower case; `None` when it finds no complete hello.
pub fn names_by_tls_parser(stream: &[u8]) -> Option<Vec<String>> {
    let message = defragmented(stream)?;
    let (_, message) = parse_tls_message_handshake(&message).ok()?;
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)) = message else {
        return None;
    };
    let mut names = Vec::new();
    let mut rest = hello.ext.unwrap_or_default();
    while let [_, _, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (whole, next) = rest.split_at_checked(4 + length)?;
        debug_assert!(tail.len() >= length);
        // A body of another extension that it cannot read hides nothing here.
        if let Ok((_, TlsExtension::SNI(entries))) = parse_tls_client_hello_extension(whole) {
            for (kind, name) in entries {
                assert_eq!(kind, SNIType::HostName);
                names.push(String::from_utf8_lossy(name).to_lowercase());
            }
        }
        rest = next;
    }
    Some(names)
}

/// The first handshake message of a stream, over as many records as it takes.
fn defragmented(mut stream: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        if let [_, length @ ..] = message.as_slice()
            && let Some([a, b, c]) = length.first_chunk()
        {
            let whole = 4 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if message.len() >= whole {
                message.truncate(whole);
                return Some(message);
            }
        }
        let (rest, record) = parse_tls_raw_record(stream).ok()?;
        if record.hdr.record_type != TlsRecordType::Handshake {
            return None;
        }
        message.extend_from_slice(record.data);
        stream = rest;
    }
}

/// What a rustls server would see.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A hello, and its server name in lower case.
    Hello(Option<String>),
    /// Not a hello, or one it does not accept.
    Nothing,
}

/// Feeds a stream to a rustls server.
pub fn seen_by_rustls(mut stream: &[u8]) -> Seen {
    let mut acceptor = Acceptor::default();
    loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_lowercase);
                return Seen::Hello(name);
            }
            Ok(None) if stream.is_empty() => return Seen::Nothing,
            Ok(None) => {
                if acceptor.read_tls(&mut stream).is_err() {
                    return Seen::Nothing;
                }
            }
            Err(_) => return Seen::Nothing,
        }
    }
}
