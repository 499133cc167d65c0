//! Host names in a configuration, and their keys in the kernel's maps.
//!
//! A route lists patterns: `www.example.org` matches that name,
//! `*.example.org` every name below `example.org` at any depth but never
//! `example.org` itself, and a lone `*` every name. An exact pattern beats a
//! wildcard and the longest wildcard beats the shorter ones, as in the
//! Kubernetes Gateway API.
//!
//! Exact patterns stand in a hash table, by the digest that [`name_key`](crate::name_key)
//! describes. What is not there is looked up among the wildcards by its
//! longest prefix (`BPF_MAP_TYPE_LPM_TRIE`), for which names are reversed; the
//! NUL, which no name contains, keeps a name from being below itself:
//!
//! | what | key in the trie, after the two bytes of the table id |
//! |---|---|
//! | pattern `*.example.org` | `gro.elpmaxe.` |
//! | pattern `*` | nothing |
//! | look-up of `www.example.org` | `gro.elpmaxe.www\0` |
//!
//! Names are compared in lower case; see RFC 1035 section 2.3.1 and RFC 5890
//! section 2.3.1 for their letters, and RFC 6066 section 3 for what a client
//! may send.

use core::fmt;

/// Bytes of a trie key: two of table id, the longest name, the closing NUL. It
/// is also the most the kernel's trie takes (`LPM_DATA_SIZE_MAX`).
pub const KEY_BYTES: usize = 256;

/// Bytes of the table id that a key begins with.
pub const TABLE_ID_BYTES: usize = 2;

/// Longest name in its textual form: 255 octets on the wire (RFC 1035 section
/// 3.1) less the first length octet and the root.
pub const MAX_NAME: usize = 253;

/// Longest label (RFC 1035 section 3.1).
pub const MAX_LABEL: usize = 63;

/// Whether a byte may occur in a host name: letters, digits, hyphen and dot,
/// and the underscore, which RFC 1123 does not allow but clients do send.
#[inline(always)]
pub const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

/// The byte in lower case, if it is an ASCII letter.
#[inline(always)]
pub const fn lower(byte: u8) -> u8 {
    if byte.wrapping_sub(b'A') < 26 {
        byte | 0x20
    } else {
        byte
    }
}

/// What is wrong with a name or a pattern. Positions are byte offsets into the
/// text that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is no text.
    Empty,
    /// The whole is longer than [`MAX_NAME`].
    TooLong {
        /// Length of the text in bytes.
        len: usize,
    },
    /// A label is longer than [`MAX_LABEL`].
    LabelTooLong {
        /// Where the label begins.
        at: usize,
    },
    /// Two dots in a row, or a dot at the beginning.
    EmptyLabel {
        /// Where the label should be.
        at: usize,
    },
    /// The name ends in a dot.
    TrailingDot,
    /// A character that no host name contains.
    BadCharacter {
        /// The character.
        character: char,
        /// Where it is.
        at: usize,
    },
    /// A label begins with a hyphen.
    LeadingHyphen {
        /// Where the label begins.
        at: usize,
    },
    /// A label ends with a hyphen.
    TrailingHyphen {
        /// Where the hyphen is.
        at: usize,
    },
    /// The text is an IP address, or ends like one: no top-level domain is all
    /// digits, and clients do not send addresses as names (RFC 6066 section 3).
    IpLiteral,
    /// A `*` that is not the whole leftmost label.
    MisplacedWildcard {
        /// Where it is.
        at: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => out.write_str("the name is empty"),
            Self::TooLong { len } => {
                write!(
                    out,
                    "the name has {len} bytes, more than the {MAX_NAME} that DNS allows"
                )
            }
            Self::LabelTooLong { at } => {
                write!(
                    out,
                    "the label at byte {at} has more than {MAX_LABEL} bytes"
                )
            }
            Self::EmptyLabel { at } => write!(out, "the label at byte {at} is empty"),
            Self::TrailingDot => {
                out.write_str("the name ends in a dot; clients send names without one")
            }
            Self::BadCharacter { character, at } if character.is_ascii() => {
                write!(
                    out,
                    "{character:?} at byte {at} cannot occur in a host name"
                )
            }
            Self::BadCharacter { character, at } => write!(
                out,
                "{character:?} at byte {at} is not ASCII; write the name in its encoded form (xn--...)"
            ),
            Self::LeadingHyphen { at } => {
                write!(out, "the label at byte {at} begins with a hyphen")
            }
            Self::TrailingHyphen { at } => {
                write!(
                    out,
                    "the label before byte {} ends with a hyphen",
                    at.saturating_add(1)
                )
            }
            Self::IpLiteral => {
                out.write_str("this is an IP address, not a name; clients never send one as a name")
            }
            Self::MisplacedWildcard { at } => {
                write!(
                    out,
                    "the `*` at byte {at} must be the whole first label, as in `*.example.org`"
                )
            }
        }
    }
}

impl core::error::Error for NameError {}

/// What kind of pattern a route lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PatternKind {
    /// Matches any name: `*`.
    Any,
    /// Matches what lies below a name: `*.example.org`.
    Wildcard,
    /// Matches one name: `www.example.org`.
    Exact,
}

/// A name pattern in lower case, as text of the type that suits its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pattern<T>(T);

impl<T: for<'a> From<&'a str>> Pattern<T> {
    /// Reads a pattern as a configuration writes it.
    ///
    /// # Errors
    ///
    /// Says what no client could ever send, or what reads like a mistake.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_pattern(text)?;
        if !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(T::from(text)));
        }
        let mut lowered = [0; MAX_NAME];
        for (to, from) in lowered.iter_mut().zip(text.bytes()) {
            *to = lower(from);
        }
        let lowered = lowered.get(..text.len()).unwrap_or_default();
        Ok(Self(T::from(
            core::str::from_utf8(lowered).unwrap_or_default(),
        )))
    }
}

/// Whether a text is a pattern.
fn check_pattern(text: &str) -> Result<(), NameError> {
    if text == "*" {
        return Ok(());
    }
    // Counted with the `*.`: the shortest name below it has as many bytes.
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong { len: text.len() });
    }
    let base = text.strip_prefix("*.").unwrap_or(text);
    check_name(base, text.len().saturating_sub(base.len()))
}

impl<T: AsRef<str>> Pattern<T> {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The same text, of the type that it is held in.
    pub const fn text(&self) -> &T {
        &self.0
    }

    /// What kind of pattern this is.
    pub fn kind(&self) -> PatternKind {
        match self.as_str().as_bytes() {
            [b'*'] => PatternKind::Any,
            [b'*', ..] => PatternKind::Wildcard,
            _ => PatternKind::Exact,
        }
    }

    /// The name in lower case, for a wildcard the part below which it matches.
    pub fn name(&self) -> &str {
        let text = self.as_str();
        match self.kind() {
            PatternKind::Any => "",
            PatternKind::Wildcard => text.get(2..).unwrap_or_default(),
            PatternKind::Exact => text,
        }
    }

    /// The key that the pattern has in a trie: prefix length in bits, and the
    /// bytes, zero beyond the prefix. Of two patterns that match one name the
    /// longer key decides.
    pub fn key(&self, table: u16) -> (u32, [u8; KEY_BYTES]) {
        let (bits, bytes) = reversed(table, self.name());
        match self.kind() {
            PatternKind::Any => (bits, bytes),
            // The NUL is there already.
            PatternKind::Exact => (bits.saturating_add(8), bytes),
            PatternKind::Wildcard => {
                let mut bytes = bytes;
                if let Some(dot) = bytes.get_mut((bits / 8) as usize) {
                    *dot = b'.';
                }
                (bits.saturating_add(8), bytes)
            }
        }
    }

    /// Whether the pattern matches a name. The name is compared without regard
    /// to case and is taken to be well-formed.
    pub fn matches(&self, name: &str) -> bool {
        let own = self.name();
        match self.kind() {
            PatternKind::Any => true,
            PatternKind::Exact => name.eq_ignore_ascii_case(own),
            PatternKind::Wildcard => {
                let Some((below, tail)) = name
                    .len()
                    .checked_sub(own.len())
                    .and_then(|at| name.split_at_checked(at))
                else {
                    return false;
                };
                tail.eq_ignore_ascii_case(own) && below.len() > 1 && below.ends_with('.')
            }
        }
    }
}

impl<T: AsRef<str>> fmt::Display for Pattern<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl<T: AsRef<str>> fmt::Debug for Pattern<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pattern({self})")
    }
}

/// The key that looks a name up among the wildcards of the given table: prefix
/// length in bits, and the bytes. A name longer than [`MAX_NAME`] is cut.
pub fn lookup_key(table: u16, name: &str) -> (u32, [u8; KEY_BYTES]) {
    let (bits, bytes) = reversed(table, name);
    (bits.saturating_add(8), bytes)
}

/// The pattern that decides about a name, by comparing it with each: the most
/// specific kind, then the longest. The reference for the maps; the daemon uses
/// it to explain a configuration.
pub fn most_specific<'a, T: AsRef<str>>(
    patterns: impl IntoIterator<Item = &'a Pattern<T>>,
    name: &str,
) -> Option<&'a Pattern<T>> {
    patterns
        .into_iter()
        .filter(|pattern| pattern.matches(name))
        .max_by_key(|pattern| (pattern.kind(), pattern.name().len()))
}

/// Table id, then the name reversed and in lower case; the length is in bits.
pub(crate) fn reversed(table: u16, name: &str) -> (u32, [u8; KEY_BYTES]) {
    let mut key = [0; KEY_BYTES];
    let bytes = table
        .to_be_bytes()
        .into_iter()
        .chain(name.bytes().rev().take(MAX_NAME).map(lower));
    let mut bits = 0u32;
    for (to, from) in key.iter_mut().zip(bytes) {
        *to = from;
        bits = bits.saturating_add(8);
    }
    (bits, key)
}

/// Checks a name that begins at byte `start` of the text that is reported on.
fn check_name(name: &str, start: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(if start == 0 {
            NameError::Empty
        } else {
            NameError::EmptyLabel { at: start }
        });
    }
    if !name.bytes().all(is_name_byte) {
        return Err(bad_character(name, start));
    }
    let labels = match name.strip_suffix('.') {
        Some(labels) if !labels.is_empty() && !labels.ends_with('.') => {
            return Err(NameError::TrailingDot);
        }
        _ => name,
    };
    let mut at = start;
    for label in labels.split('.') {
        check_label(label, at)?;
        at = at.saturating_add(label.len()).saturating_add(1);
    }
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NameError::IpLiteral);
    }
    Ok(())
}

/// What is wrong with a name that has bytes which no name has.
fn bad_character(name: &str, start: usize) -> NameError {
    if name.parse::<core::net::Ipv6Addr>().is_ok() || is_bracketed_address(name) {
        return NameError::IpLiteral;
    }
    let is_bad = |character: &char| !u8::try_from(*character).is_ok_and(is_name_byte);
    let mut bad = name.char_indices().filter(|(_, own)| is_bad(own));
    let (at, character) = bad.next().unwrap_or_default();
    let at = at.saturating_add(start);
    match character {
        '*' => NameError::MisplacedWildcard { at },
        _ => NameError::BadCharacter { character, at },
    }
}

fn check_label(label: &str, at: usize) -> Result<(), NameError> {
    match label.as_bytes() {
        [] => Err(NameError::EmptyLabel { at }),
        [b'-', ..] => Err(NameError::LeadingHyphen { at }),
        [.., b'-'] => Err(NameError::TrailingHyphen {
            at: at.saturating_add(label.len()).saturating_sub(1),
        }),
        _ if label.len() > MAX_LABEL => Err(NameError::LabelTooLong { at }),
        _ => Ok(()),
    }
}

/// `[2001:db8::7]`, as URLs write it.
fn is_bracketed_address(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<core::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    type Pattern = super::Pattern<String>;

    fn error(text: &str) -> NameError {
        Pattern::parse(text).unwrap_err()
    }

    #[test]
    fn good_patterns_are_lowered_and_shown_as_written() {
        for (text, shown, kind) in [
            ("www.example.org", "www.example.org", PatternKind::Exact),
            ("WWW.Example.ORG", "www.example.org", PatternKind::Exact),
            (
                "*.Apps.example.org",
                "*.apps.example.org",
                PatternKind::Wildcard,
            ),
            ("*.org", "*.org", PatternKind::Wildcard),
            ("*", "*", PatternKind::Any),
            ("nas", "nas", PatternKind::Exact),
            (
                "_dmarc.a-b.xn--bcher-kva.example",
                "_dmarc.a-b.xn--bcher-kva.example",
                PatternKind::Exact,
            ),
            ("1.2.3.4.example", "1.2.3.4.example", PatternKind::Exact),
            ("a--b.x1", "a--b.x1", PatternKind::Exact),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!(pattern.to_string(), shown);
            assert_eq!(pattern.kind(), kind);
        }
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        use NameError::*;
        let label = "a".repeat(64);
        let long = format!("{}.org", "a.".repeat(125) + "a");
        for (text, expected) in [
            ("", Empty),
            (long.as_str(), TooLong { len: 255 }),
            (&format!("www.{label}.org"), LabelTooLong { at: 4 }),
            (&format!("*.{label}.org"), LabelTooLong { at: 2 }),
            ("www..org", EmptyLabel { at: 4 }),
            (".org", EmptyLabel { at: 0 }),
            (".", EmptyLabel { at: 0 }),
            ("*.", EmptyLabel { at: 2 }),
            ("*..org", EmptyLabel { at: 2 }),
            ("example.org.", TrailingDot),
            ("*.example.org.", TrailingDot),
            (
                "a b.org",
                BadCharacter {
                    character: ' ',
                    at: 1,
                },
            ),
            (
                "*.a/b.org",
                BadCharacter {
                    character: '/',
                    at: 3,
                },
            ),
            (
                "https://a.org",
                BadCharacter {
                    character: ':',
                    at: 5,
                },
            ),
            (
                "a.org:443",
                BadCharacter {
                    character: ':',
                    at: 5,
                },
            ),
            (
                "b\u{fc}cher.example",
                BadCharacter {
                    character: '\u{fc}',
                    at: 1,
                },
            ),
            (
                "a\0.org",
                BadCharacter {
                    character: '\0',
                    at: 1,
                },
            ),
            ("-a.org", LeadingHyphen { at: 0 }),
            ("*.x.-a.org", LeadingHyphen { at: 4 }),
            ("ab-.org", TrailingHyphen { at: 2 }),
            ("-", LeadingHyphen { at: 0 }),
            ("192.0.2.1", IpLiteral),
            ("*.192.0.2.1", IpLiteral),
            ("192.0.2", IpLiteral),
            ("2001:db8::7", IpLiteral),
            ("[2001:db8::7]", IpLiteral),
            ("www.*.org", MisplacedWildcard { at: 4 }),
            ("*.*.org", MisplacedWildcard { at: 2 }),
            ("w*.example.org", MisplacedWildcard { at: 1 }),
            ("*www.example.org", MisplacedWildcard { at: 0 }),
            ("**", MisplacedWildcard { at: 0 }),
        ] {
            assert_eq!(error(text), expected, "{text:?}");
        }
    }

    #[test]
    fn messages_help() {
        assert_eq!(
            error("a b").to_string(),
            "' ' at byte 1 cannot occur in a host name"
        );
        assert_eq!(
            error("\u{fc}.example").to_string(),
            "'\u{fc}' at byte 0 is not ASCII; write the name in its encoded form (xn--...)"
        );
    }

    #[test]
    fn keys_are_as_documented() {
        let key = |text: &str| {
            let (bits, bytes) = Pattern::parse(text).unwrap().key(0x0102);
            let (prefix, rest) = bytes.split_at(bits as usize / 8);
            assert!(rest.iter().all(|byte| *byte == 0));
            prefix.to_vec()
        };
        assert_eq!(key("WWW.example.org"), b"\x01\x02gro.elpmaxe.www\0");
        assert_eq!(key("*.example.org"), b"\x01\x02gro.elpmaxe.");
        assert_eq!(key("*"), b"\x01\x02");
        let (bits, bytes) = lookup_key(0x0102, "www.EXAMPLE.org");
        assert_eq!(&bytes[..bits as usize / 8], b"\x01\x02gro.elpmaxe.www\0");
    }

    #[test]
    fn the_longest_name_fills_the_key() {
        let longest = "a.".repeat(126) + "b";
        assert_eq!(longest.len(), MAX_NAME);
        let (bits, bytes) = Pattern::parse(&longest).unwrap().key(0);
        assert_eq!(bits as usize, KEY_BYTES * 8);
        assert_eq!(&bytes[..5], b"\0\0b.a");
        assert_eq!(bytes[KEY_BYTES - 1], 0);
        assert_eq!(lookup_key(0, &longest), (bits, bytes));
    }

    #[test]
    fn specific_beats_general() {
        let patterns: Vec<_> = [
            "*",
            "*.org",
            "*.example.org",
            "www.example.org",
            "example.org",
        ]
        .map(|text| Pattern::parse(text).unwrap())
        .into();
        for (name, expected) in [
            ("WWW.example.org", Some("www.example.org")),
            ("a.www.example.org", Some("*.example.org")),
            ("x.example.org", Some("*.example.org")),
            ("example.org", Some("example.org")),
            ("notexample.org", Some("*.org")),
            ("org", Some("*")),
            ("example.com", Some("*")),
        ] {
            let found = most_specific(&patterns, name).map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        assert_eq!(most_specific(&patterns[1..], "org"), None);
    }

    #[test]
    fn name_bytes() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert_eq!(is_name_byte(byte), expected, "{byte:#x}");
            assert_eq!(lower(byte), byte.to_ascii_lowercase());
        }
    }
}
