//! A hello, and a reader's view of it.

use forwarder_common::hello::Bytes;

/// A ClientHello with a server name and nothing else.
pub fn client_hello(name: &[u8]) -> Vec<u8> {
    let long = |length: usize| (length as u16).to_be_bytes();
    let mut entry = vec![0];
    entry.extend(long(name.len()));
    entry.extend(name);
    let mut list = long(entry.len()).to_vec();
    list.extend(entry);
    let mut extensions = vec![0, 0];
    extensions.extend(long(list.len()));
    extensions.extend(list);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(extensions.len()));
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend(long(body.len() + 4));
    record.extend([1, 0]);
    record.extend(long(body.len()));
    record.extend(body);
    record
}

/// A stream that is read into a buffer.
pub struct Stream<'a> {
    pub bytes: &'a [u8],
    pub name: &'a mut [u8; 256],
}

impl Bytes for Stream<'_> {
    fn byte(&self, at: u32) -> u8 {
        self.bytes[at as usize]
    }

    fn word(&self, at: u32) -> u32 {
        let place = |i: u32| self.bytes.get((at + i) as usize).copied().unwrap_or(0);
        u32::from_be_bytes([0, 1, 2, 3].map(place))
    }

    fn put_name(&mut self, index: u32, byte: u8) {
        self.name[index as usize] = byte;
    }

    fn put_alpn(&mut self, _: u32, _: u8) {}
}
