//! Builds ClientHellos, right and wrong ones, and cuts them into TLS records.

/// Extension numbers (IANA TLS ExtensionType values).
pub mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const SUPPORTED_GROUPS: u16 = 10;
    pub const SIGNATURE_ALGORITHMS: u16 = 13;
    pub const ALPN: u16 = 16;
    pub const PADDING: u16 = 21;
    pub const SESSION_TICKET: u16 = 35;
    pub const SUPPORTED_VERSIONS: u16 = 43;
    pub const KEY_SHARE: u16 = 51;
    pub const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    pub const GREASE: u16 = 0x3a3a;
}

/// A ClientHello in parts. `extensions: None` leaves the whole block out.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: u16,
    pub session: Vec<u8>,
    pub ciphers: Vec<u16>,
    pub compression: Vec<u8>,
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    /// A hello without any extension.
    pub fn bare() -> Self {
        Self {
            version: 0x0303,
            session: vec![0x5e; 32],
            ciphers: vec![0x1301, 0x1302, 0xc02f],
            compression: vec![0],
            extensions: None,
        }
    }

    /// A hello of a plain TLS 1.3 client for one server name.
    pub fn named(name: &str) -> Self {
        Self::bare()
            .with(extension::SUPPORTED_GROUPS, &[0, 2, 0, 0x1d])
            .with(extension::SERVER_NAME, &server_name(name.as_bytes()))
            .with(extension::SIGNATURE_ALGORITHMS, &[0, 4, 4, 3, 8, 4])
            .with(extension::SUPPORTED_VERSIONS, &[2, 3, 4])
    }

    /// Appends an extension.
    pub fn with(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions
            .get_or_insert_default()
            .push((kind, body.to_vec()));
        self
    }

    /// Puts an extension before all others.
    pub fn first(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions
            .get_or_insert_default()
            .insert(0, (kind, body.to_vec()));
        self
    }

    /// Grows the handshake message, without its header, to `length` bytes.
    pub fn padded_to(self, length: usize) -> Self {
        let missing = length - (self.message().len() - 4) - 4;
        self.with(extension::PADDING, &vec![0; missing])
    }

    /// The handshake message with its header of four bytes.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend((0..32).map(|at| 0x40 ^ at));
        body.push(self.session.len() as u8);
        body.extend(&self.session);
        body.extend(length_u16(2 * self.ciphers.len()));
        body.extend(self.ciphers.iter().flat_map(|suite| suite.to_be_bytes()));
        body.push(self.compression.len() as u8);
        body.extend(&self.compression);
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, content)| {
                    [&kind.to_be_bytes()[..], &length_u16(content.len()), content].concat()
                })
                .collect();
            body.extend(length_u16(block.len()));
            body.extend(block);
        }
        let length = (body.len() as u32).to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The message in records of at most 2^14 bytes, as sent.
    pub fn stream(&self) -> Vec<u8> {
        records(&self.message(), |_| 1 << 14)
    }
}

fn length_u16(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("fits 16 bits").to_be_bytes()
}

/// A TLS record.
pub fn record(kind: u8, version: u16, content: &[u8]) -> Vec<u8> {
    [
        &[kind],
        &version.to_be_bytes()[..],
        &length_u16(content.len()),
        content,
    ]
    .concat()
}

/// A message in handshake records whose sizes `size` says, given the count of
/// records so far. The last one is as short as it comes.
pub fn records(message: &[u8], size: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut stream = Vec::new();
    let (mut rest, mut count) = (message, 0);
    while !rest.is_empty() {
        let (content, tail) = rest.split_at(size(count).clamp(1, rest.len()));
        stream.extend(record(22, 0x0301, content));
        (rest, count) = (tail, count + 1);
    }
    stream
}

/// Body of a `server_name` extension with one host name.
pub fn server_name(name: &[u8]) -> Vec<u8> {
    server_names(&[(0, name)])
}

/// Body of a `server_name` extension with any entries.
pub fn server_names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = entries
        .iter()
        .flat_map(|(kind, name)| [&[*kind], &length_u16(name.len())[..], name].concat())
        .collect();
    [&length_u16(list.len())[..], &list].concat()
}

/// Body of an ALPN extension.
pub fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|name| [&[name.len() as u8], *name].concat())
        .collect();
    [&length_u16(list.len())[..], &list].concat()
}
