//! "Did you mean …": the closest known word to one that is unknown.

use strsim::damerau_levenshtein;

/// Words of other proxies' configurations, and the key that does the same here.
const SYNONYMS: &[(&str, &str)] = &[
    ("interface", "public"),
    ("interfaces", "public"),
    ("external", "public"),
    ("wan", "public"),
    ("internal", "tunnels"),
    ("vpn", "tunnels"),
    ("frontend", "listener"),
    ("server", "listener"),
    ("bind", "addresses"),
    ("listen", "addresses"),
    ("backend", "pool"),
    ("upstream", "pool"),
    ("backends", "nodes"),
    ("servers", "nodes"),
    ("targets", "nodes"),
    ("hosts", "names"),
    ("domains", "names"),
    ("sni", "names"),
    ("hostnames", "names"),
    ("algorithm", "balance"),
    ("ip", "address"),
];

/// The candidate that `word` was most likely meant to be, if one is close enough.
pub fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let synonym = SYNONYMS
        .iter()
        .find(|(foreign, _)| *foreign == lower)
        .map(|(_, own)| *own);
    if let Some(own) = synonym
        && let Some(found) = candidates.clone().into_iter().find(|known| *known == own)
    {
        return Some(found);
    }
    // One slip in three characters, at least one and at most three.
    let allowed = (lower.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|known| (damerau_levenshtein(&lower, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A list for a person: "`a`, `b` or `c`".
pub fn alternatives<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::from("none"),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_for_slips_and_foreign_words() {
        let keys = ["name", "nodes", "balance", "client_address"];
        assert_eq!(closest("nodse", keys), Some("nodes"));
        assert_eq!(closest("Balance", keys), Some("balance"));
        assert_eq!(closest("client-address", keys), Some("client_address"));
        assert_eq!(closest("servers", keys), Some("nodes"));
        assert_eq!(closest("timeout", keys), None);
    }

    #[test]
    fn short_words_do_not_match_everything() {
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest("eth1", ["eth0", "wg0"]), Some("eth0"));
    }

    #[test]
    fn alternatives_read_well() {
        assert_eq!(alternatives(["a"]), "`a`");
        assert_eq!(alternatives(["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(alternatives([]), "none");
    }
}
