//! Writes small MaxMind DB files, so that tests need none from elsewhere.
//!
//! Records of 24 bits, IPv6 with IPv4 below `::/96`, no aliases.
//! <https://maxmind.github.io/MaxMind-DB/>

use std::net::IpAddr;

/// What stands in a database.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number of 32 bits.
    Number(u32),
    /// A number of 64 bits.
    Long(u64),
    /// A number of 16 bits.
    Short(u16),
    /// Keys and values.
    Map(&'a [(&'a str, Value<'a>)]),
    /// A list.
    List(&'a [Value<'a>]),
}

/// A network, as address and prefix length, and what is known about it. Networks must not overlap.
pub type Network<'a> = (IpAddr, u8, Value<'a>);

/// Where a half of a node leads.
#[derive(Clone, Copy)]
enum Record {
    Nowhere,
    Node(usize),
    Data(usize),
}

/// A database of a type, such as `GeoLite2-Country`, built at a time, seconds since 1970.
#[must_use]
pub fn database(kind: &str, built: u64, networks: &[Network<'_>]) -> Vec<u8> {
    let mut nodes = vec![[Record::Nowhere; 2]];
    let mut data = Vec::new();
    for (address, length, value) in networks {
        let (bits, length) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), usize::from(*length) + 96),
            IpAddr::V6(v6) => (v6.to_bits(), usize::from(*length)),
        };
        let leaf = Record::Data(data.len());
        encode(&mut data, *value);
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            node = match nodes[node][side] {
                _ if depth == length - 1 => {
                    nodes[node][side] = leaf;
                    break;
                }
                Record::Node(next) => next,
                Record::Nowhere => {
                    nodes.push([Record::Nowhere; 2]);
                    nodes[node][side] = Record::Node(nodes.len() - 1);
                    nodes.len() - 1
                }
                Record::Data(_) => panic!("{address}/{length} overlaps another network"),
            };
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for record in nodes.into_iter().flatten() {
        let value = match record {
            Record::Nowhere => count,
            Record::Node(node) => node,
            // Sixteen zeros separate tree and data.
            Record::Data(at) => count + 16 + at,
        };
        file.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    let metadata = [
        ("binary_format_major_version", Value::Short(2)),
        ("binary_format_minor_version", Value::Short(0)),
        ("build_epoch", Value::Long(built)),
        ("database_type", Value::Text(kind)),
        ("description", Value::Map(&[])),
        ("ip_version", Value::Short(6)),
        ("languages", Value::List(&[])),
        ("node_count", Value::Number(count as u32)),
        ("record_size", Value::Short(24)),
    ];
    encode(&mut file, Value::Map(&metadata));
    file
}

/// A database of countries by two-letter code, as GeoLite2-Country has them.
#[must_use]
pub fn countries(built: u64, networks: &[(IpAddr, u8, &str)]) -> Vec<u8> {
    let codes: Vec<_> = networks
        .iter()
        .map(|(_, _, code)| [("iso_code", Value::Text(code))])
        .collect();
    let records: Vec<_> = codes
        .iter()
        .map(|code| [("country", Value::Map(code))])
        .collect();
    let networks = networks.iter().zip(&records);
    let networks: Vec<_> = networks
        .map(|((address, length, _), record)| (*address, *length, Value::Map(record)))
        .collect();
    database("GeoLite2-Country", built, &networks)
}

fn encode(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => {
            control(out, 2, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Short(number) => {
            control(out, 5, 2);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Number(number) => {
            control(out, 6, 4);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Long(number) => {
            control(out, 9, 8);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Map(entries) => {
            control(out, 7, entries.len());
            for (key, value) in entries {
                encode(out, Value::Text(key));
                encode(out, *value);
            }
        }
        Value::List(values) => {
            control(out, 11, values.len());
            values.iter().for_each(|value| encode(out, *value));
        }
    }
}

/// Type and size of the value that follows.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (short, more) = match size {
        0..29 => (size as u8, None),
        29..285 => (29, Some((size - 29) as u8)),
        _ => panic!("a value of {size} bytes"),
    };
    // Types above 7 have a byte of their own.
    match kind {
        ..8 => out.push(kind << 5 | short),
        8.. => out.extend_from_slice(&[short, kind - 7]),
    }
    out.extend(more);
}
