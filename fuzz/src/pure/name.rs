//! Name patterns.

use forwarder_common::name::{PatternKind, lookup_key, most_specific};

type Pattern = forwarder_common::name::Pattern<String>;

/// A pattern from a configuration: what is taken is a name, and the trie's key
/// for it finds it.
pub fn name(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(pattern.to_string(), text.to_ascii_lowercase());
    assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern.clone()));
    let (bits, key) = pattern.key(7);
    let sample = match pattern.kind() {
        PatternKind::Exact => pattern.name().to_owned(),
        PatternKind::Wildcard => format!("a.{}", pattern.name()),
        PatternKind::Any => "any.example".to_owned(),
    };
    assert!(sample.len() <= 253, "no name can match {pattern}");
    assert_eq!(most_specific([&pattern], &sample), Some(&pattern));
    let (sample_bits, sample_key) = lookup_key(7, &sample);
    let prefix = bits as usize / 8;
    assert!(bits <= sample_bits && bits % 8 == 0);
    assert_eq!(key[..prefix], sample_key[..prefix]);
}
