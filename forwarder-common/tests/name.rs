//! Properties of name patterns: the maps decide as the reference matcher does.

use std::collections::HashMap;

use forwarder_common::abi::NameKey;
use forwarder_common::name::{PatternKind, lookup_key, most_specific};
use forwarder_common::name_key;
use proptest::prelude::*;

type Pattern = forwarder_common::name::Pattern<String>;

const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// A hash table of names, and a longest-prefix-match trie of wildcards as the kernel defines it, by trying every
/// length.
#[derive(Default)]
struct Maps {
    names: HashMap<(u64, u64), Pattern>,
    wildcards: HashMap<Vec<u8>, Pattern>,
}

fn exact(table: u16, name: &str) -> (u64, u64) {
    let NameKey {
        digest,
        more_and_table,
    } = name_key::of(SECRET, table, name);
    (digest, more_and_table)
}

impl Maps {
    fn insert(&mut self, table: u16, pattern: Pattern) {
        if pattern.kind() == PatternKind::Exact {
            self.names.insert(exact(table, pattern.name()), pattern);
            return;
        }
        let (bits, bytes) = pattern.key(table);
        assert_eq!(bits % 8, 0, "patterns end at a byte");
        let prefix = bytes[..bits as usize / 8].to_vec();
        self.wildcards.insert(prefix, pattern);
    }

    fn find(&self, table: u16, name: &str) -> Option<&Pattern> {
        if let Some(pattern) = self.names.get(&exact(table, name)) {
            return Some(pattern);
        }
        let (bits, bytes) = lookup_key(table, name);
        (0..=bits as usize / 8)
            .rev()
            .find_map(|len| self.wildcards.get(&bytes[..len]))
    }
}

/// Few labels over few letters, so that patterns and names often meet.
fn small_name() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}|A|a-b|a_", 1..5).prop_map(|labels| labels.join("."))
}

fn small_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => small_name(),
        4 => small_name().prop_map(|name| format!("*.{name}")),
        1 => Just("*".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn maps_agree_with_the_reference(
        patterns in prop::collection::vec((small_pattern(), 0u16..3), 1..30),
        names in prop::collection::vec((small_name(), 0u16..3), 1..30),
    ) {
        let mut maps = Maps::default();
        let mut tables: HashMap<u16, Vec<Pattern>> = HashMap::new();
        for (text, table) in patterns {
            let pattern = Pattern::parse(&text).unwrap();
            maps.insert(table, pattern.clone());
            tables.entry(table).or_default().push(pattern);
        }
        for (name, table) in names {
            let expected = tables.get(&table).and_then(|patterns| most_specific(patterns, &name));
            prop_assert_eq!(maps.find(table, &name), expected, "{} in table {}", name, table);
        }
    }

    /// The matcher itself, against labels instead of text.
    #[test]
    fn wildcard_means_one_or_more_labels_below(name in small_name(), base in small_name()) {
        let wildcard = Pattern::parse(&format!("*.{base}")).unwrap();
        let (name, base) = (name.to_lowercase(), base.to_lowercase());
        let name_labels: Vec<_> = name.split('.').collect();
        let base_labels: Vec<_> = base.split('.').collect();
        let expected = name_labels.len() > base_labels.len() && name_labels.ends_with(&base_labels);
        prop_assert_eq!(wildcard.matches(&name), expected);
        prop_assert_eq!(Pattern::parse(&base).unwrap().matches(&name), name == base);
    }

    #[test]
    fn parsing_never_panics_and_shows_what_it_took(text in any::<String>()) {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(pattern.to_string(), text.to_ascii_lowercase());
        }
    }

    /// As above, over text that is nearly a name.
    #[test]
    fn near_names_parse_or_fail_with_a_place_inside(text in "[*a-cA-C0-9._:-]{0,80}") {
        match Pattern::parse(&text) {
            Ok(pattern) => {
                prop_assert_eq!(pattern.to_string(), text.to_ascii_lowercase());
                prop_assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern.clone()));
                let bare = text.strip_prefix("*.").unwrap_or(&text);
                let well_formed = |label: &str| {
                    (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
                };
                prop_assert!(bare == "*" || bare.split('.').all(well_formed));
                prop_assert!(bare.parse::<std::net::IpAddr>().is_err());
            }
            Err(error) => {
                use forwarder_common::name::NameError::*;
                if let LabelTooLong { at } | EmptyLabel { at } | BadCharacter { at, .. }
                    | LeadingHyphen { at } | TrailingHyphen { at } | MisplacedWildcard { at } = error
                {
                    prop_assert!(at <= text.len());
                }
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn names_of_every_length_keep_their_key(len in 1usize..=253, table: u16) {
        let name: String = (0..len).map(|at| if at % 2 == 1 && at + 1 < len { '.' } else { 'a' }).collect();
        let pattern = Pattern::parse(&name).unwrap();
        prop_assert_eq!(pattern.kind(), PatternKind::Exact);
        prop_assert_eq!(pattern.key(table), lookup_key(table, &name));
        prop_assert_eq!(pattern.key(table).0 as usize, 8 * (2 + len + 1));
    }

    /// The data path reads the name by words from a buffer that holds older bytes behind it.
    #[test]
    fn both_sides_make_the_same_key(
        name in "[a-zA-Z0-9._-]{1,253}",
        table: u16,
        secret: [u64; 2],
        older: u8,
    ) {
        let mut bytes = [older; 256];
        let reversed = name.bytes().rev().map(|byte| byte.to_ascii_lowercase());
        let reversed = table.to_be_bytes().into_iter().chain(reversed);
        let mut len = 0;
        for byte in reversed {
            bytes[len] = byte;
            len += 1;
        }
        let (words, _) = bytes.as_chunks::<8>();
        let key = name_key::of_words(secret, table, len as u32, |at| {
            u64::from_le_bytes(words[at as usize])
        });
        prop_assert_eq!(key, name_key::of(secret, table, &name));
        prop_assert_eq!(key.table(), table);
        prop_assert_ne!(key, name_key::of(secret, table.wrapping_add(1), &name));
        prop_assert_ne!(key, name_key::of([secret[0], secret[1] ^ 1], table, &name));
    }
}
