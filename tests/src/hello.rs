//! ClientHellos by hand (RFC 8446, section 4.1.2): from a browser's to a malicious one.
//!
//! The keys in them are noise: no server can finish a handshake with such a hello. They serve for
//! what a forwarder decides and delivers.

pub mod cases;

use crate::pattern::Pattern;

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// Encrypted ClientHello (RFC 9849).
const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// A ClientHello under construction.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version in the record header; its major part is always 3.
    pub record_version: u16,
    /// The session id.
    pub session: Vec<u8>,
    /// The cipher suites.
    pub suites: Vec<u16>,
    /// The extensions in their order; `None` leaves out even their list.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
    random: [u8; 32],
}

impl Hello {
    /// What a small modern client sends: about 250 bytes.
    #[must_use]
    pub fn small(name: &str) -> Self {
        let mut random = [0; 32];
        Pattern::new(name.len() as u64).fill(&mut random);
        Self {
            record_version: 0x0301,
            session: random.to_vec(),
            suites: vec![
                0x1302, 0x1303, 0x1301, 0xc02c, 0xc030, 0xc02b, 0xc02f, 0x00ff,
            ],
            extensions: Some(vec![
                (SERVER_NAME, server_name(&[(0, name.as_bytes())])),
                (11, vec![1, 0]),
                (SUPPORTED_GROUPS, list16(&words(&[0x001d, 0x0017, 0x0018]))),
                (
                    13,
                    list16(&words(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501])),
                ),
                (23, Vec::new()),
                (SUPPORTED_VERSIONS, vec![4, 3, 4, 3, 3]),
                (KEY_SHARE, list16(&share(0x001d, 32))),
            ]),
            random,
        }
    }

    /// What a browser sends: GREASE, extensions in random order, a post-quantum key share, an ECH
    /// extension as decoy; 1,700 to 2,000 bytes, with the name anywhere in it.
    #[must_use]
    pub fn browser(name: &str, seed: u64) -> Self {
        let mut pattern = Pattern::new(seed);
        let mut byte = move || {
            let mut one = [0];
            pattern.fill(&mut one);
            one[0]
        };
        // GREASE values (RFC 8701); those of the two extensions must differ.
        let grease = |nibble: u8| u16::from_be_bytes([0x0a | nibble << 4; 2]);
        let (first, suite, second) = (grease(byte()), grease(byte()), byte());
        let (second, third) = (grease(second), grease(second.wrapping_add(1 + byte() % 15)));
        let mut hello = Self::small(name);
        hello.suites.insert(0, suite);
        let mut shares = share(first, 1);
        shares.extend(share(0x11ec, 1_216));
        shares.extend(share(0x001d, 32));
        let mut decoy = vec![0, 0, 1, 0, 1, byte(), 0, 32];
        decoy.extend(noise(seed ^ 1, 32));
        decoy.extend([0, 144]);
        decoy.extend(noise(seed ^ 2, 144));
        let mut middle = vec![
            (SERVER_NAME, server_name(&[(0, name.as_bytes())])),
            (23, Vec::new()),
            (0xff01, vec![0]),
            (
                SUPPORTED_GROUPS,
                list16(&words(&[first, 0x11ec, 0x001d, 0x0017, 0x0018])),
            ),
            (11, vec![1, 0]),
            (35, Vec::new()),
            (ALPN, protocols(&["h2", "http/1.1"])),
            (5, vec![1, 0, 0, 0, 0]),
            (
                13,
                list16(&words(&[
                    0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
                ])),
            ),
            (18, Vec::new()),
            (KEY_SHARE, list16(&shares)),
            (45, vec![1, 1]),
            (
                SUPPORTED_VERSIONS,
                [&[6][..], &third.to_be_bytes(), &[3, 4, 3, 3]].concat(),
            ),
            (27, vec![2, 0, 2]),
            (17_613, vec![0, 3, 2, b'h', b'2']),
            (ENCRYPTED_HELLO, decoy),
        ];
        for last in (1..middle.len()).rev() {
            let other = usize::from(byte()) % (last + 1);
            middle.swap(last, other);
        }
        middle.insert(0, (second, Vec::new()));
        middle.push((third, vec![0]));
        hello.extensions = Some(middle);
        hello
    }

    /// Without the server name extension.
    #[must_use]
    pub fn without_name(self) -> Self {
        self.change(|extensions| extensions.retain(|(kind, _)| *kind != SERVER_NAME))
    }

    /// With these bytes as the content of the server name extension.
    #[must_use]
    pub fn server_name(self, content: Vec<u8>) -> Self {
        self.change(|extensions| {
            for (_, value) in extensions
                .iter_mut()
                .filter(|(kind, _)| *kind == SERVER_NAME)
            {
                value.clone_from(&content);
            }
        })
    }

    /// With one more extension at the end.
    #[must_use]
    pub fn extension(self, kind: u16, content: Vec<u8>) -> Self {
        self.change(|extensions| extensions.push((kind, content)))
    }

    /// With the protocols that the client offers.
    #[must_use]
    pub fn alpn(self, names: &[&str]) -> Self {
        let content = protocols(names);
        self.change(|extensions| {
            extensions.retain(|(kind, _)| *kind != ALPN);
            extensions.push((ALPN, content));
        })
    }

    /// Padded (RFC 7685) so that the handshake message is `length` bytes long.
    #[must_use]
    pub fn padded_to(self, length: usize) -> Self {
        let now = self.message().len();
        self.extension(PADDING, vec![0; length.saturating_sub(now + 4)])
    }

    /// With the server name extension behind all others, past the first segment if they are large.
    #[must_use]
    pub fn name_last(self) -> Self {
        self.change(|extensions| {
            extensions.sort_by_key(|(kind, _)| *kind == SERVER_NAME);
        })
    }

    /// The handshake message: type, length, body.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend(self.random);
        body.push(u8::try_from(self.session.len()).unwrap_or(32));
        body.extend(&self.session);
        body.extend(list16(&words(&self.suites)));
        body.extend([1, 0]);
        if let Some(extensions) = &self.extensions {
            let mut all = Vec::new();
            for (kind, content) in extensions {
                all.extend(kind.to_be_bytes());
                all.extend(list16(content));
            }
            body.extend(list16(&all));
        }
        let [_, length @ ..] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[1][..], &length, &body].concat()
    }

    /// The whole in one TLS record (or several, if it does not fit into one).
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        self.records(16_384)
    }

    /// The whole in TLS records of at most `size` bytes each.
    #[must_use]
    pub fn records(&self, size: usize) -> Vec<u8> {
        records(&self.message(), size, self.record_version)
    }

    fn change(mut self, change: impl FnOnce(&mut Vec<(u16, Vec<u8>)>)) -> Self {
        change(self.extensions.get_or_insert_default());
        self
    }
}

/// Handshake bytes as TLS records of at most `size` bytes each.
#[must_use]
pub fn records(message: &[u8], size: usize, version: u16) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|piece| {
            let [major, minor] = version.to_be_bytes();
            [&[22, major, minor][..], &list16(piece)].concat()
        })
        .collect()
}

/// The content of a server name extension: a list of names, each with its type.
#[must_use]
pub fn server_name(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [&[*kind][..], &list16(name)].concat())
        .collect();
    list16(&list)
}

fn protocols(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            [
                &[u8::try_from(name.len()).unwrap_or(u8::MAX)],
                name.as_bytes(),
            ]
            .concat()
        })
        .collect();
    list16(&list)
}

fn share(group: u16, length: usize) -> Vec<u8> {
    [
        &group.to_be_bytes()[..],
        &list16(&noise(group.into(), length)),
    ]
    .concat()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

fn words(values: &[u16]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect()
}

/// Bytes behind a 16-bit length.
fn list16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a list of at most 65,535 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::Hello;

    /// rustls reads what we build: the name, and the protocols.
    fn accepted(bytes: &[u8]) -> Result<(Option<String>, Vec<Vec<u8>>), String> {
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor
            .read_tls(&mut &*bytes)
            .map_err(|error| error.to_string())?;
        let accepted = acceptor
            .accept()
            .map_err(|(error, _)| error.to_string())?
            .ok_or("not complete")?;
        let hello = accepted.client_hello();
        let protocols = hello
            .alpn()
            .into_iter()
            .flatten()
            .map(<[u8]>::to_vec)
            .collect();
        Ok((hello.server_name().map(str::to_owned), protocols))
    }

    #[test]
    fn rustls_reads_the_hellos() {
        let small = Hello::small("www.example.org").alpn(&["http/1.1"]).record();
        let (name, protocols) = accepted(&small).unwrap();
        assert_eq!(name.as_deref(), Some("www.example.org"));
        assert_eq!(protocols, [b"http/1.1"]);
        for seed in 0..50 {
            let hello = Hello::browser("www.example.org", seed);
            let bytes = hello.record();
            assert!((1_500..2_100).contains(&bytes.len()), "{}", bytes.len());
            assert_eq!(
                accepted(&bytes).unwrap().0.as_deref(),
                Some("www.example.org")
            );
            assert_eq!(
                accepted(&hello.records(16)).unwrap().0.as_deref(),
                Some("www.example.org")
            );
        }
    }

    #[test]
    fn padding_gives_the_wanted_length() {
        assert_eq!(
            Hello::small("a.example.org")
                .padded_to(5_000)
                .message()
                .len(),
            5_000
        );
    }

    #[test]
    fn the_name_can_stand_last() {
        let message = Hello::browser("tail.example.org", 3).name_last().message();
        assert!(message.ends_with(b"tail.example.org"));
    }
}
