//! What the name tables hold, and the steps from there to what they should hold.
//!
//! The daemon remembers which routes made each table, not its rows: the routes of a configuration are shared, and
//! two lists of names that begin and end alike are compared in one pass. Only what lies between is looked at name
//! by name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use forwarder_common::abi::NameEntry;
use forwarder_common::name::Pattern;

use super::names::Names;
use super::plan::{NameTable, Part};
use super::registry::Registry;

/// A table is written anew, rather than changed where it is, if one in so many of its names is another…
const SHARE: usize = 8;
/// …and more than so many.
const FEW: usize = 16;

/// The names of all listeners.
#[derive(Debug, Default)]
pub struct Listed {
    tables: BTreeMap<u16, Known>,
}

#[derive(Debug, Default)]
struct Known {
    parts: Vec<Part>,
    digest: u64,
    /// Whether the map holds just that.
    is_written: bool,
}

/// What is to be done with the table of a listener.
#[derive(Debug)]
pub struct Step {
    /// The listener.
    pub listener: u16,
    /// The digest of the table once that is done.
    pub digest: u64,
    /// How.
    pub way: Way,
}

/// How a table changes.
#[derive(Debug)]
pub enum Way {
    /// All its names are written under an id that nobody uses.
    Anew {
        /// The names.
        parts: Vec<Part>,
        /// Those of the former table, if they are known.
        former: Option<Vec<Part>>,
    },
    /// Some names are written and removed while the others stay.
    InPlace {
        /// Names to write, in this order.
        put: Vec<(Pattern, NameEntry)>,
        /// Names to remove after that, in this order.
        gone: Vec<Pattern>,
    },
    /// The listener is gone.
    Gone {
        /// The names of its table, if they are known.
        former: Option<Vec<Part>>,
    },
}

impl Listed {
    /// How many names there would be, those that linger included, if `tables` were listed too.
    pub fn count_with(&self, tables: &[NameTable], names: &Names, room: u32) -> usize {
        let most: usize = tables.iter().map(NameTable::len).sum();
        if names.end() + most <= room as usize {
            return names.end();
        }
        let mut text = String::new();
        let all: Vec<_> = tables
            .iter()
            .flat_map(|table| stretches(&table.parts))
            .collect();
        let patterns = rows(&all);
        let fresh: HashSet<&Pattern> = patterns
            .map(|(pattern, ..)| pattern)
            .filter(|pattern| names.of(written(pattern, &mut text)).is_none())
            .collect();
        names.end().max(names.count() + fresh.len())
    }

    /// The steps to `tables`. From now on these are the listed ones; whether the maps say so too is told by
    /// [`Self::is_written`].
    pub fn steps(&mut self, tables: &[NameTable], registry: &mut Registry) -> Vec<Step> {
        let mut steps = Vec::new();
        for table in tables {
            let known = self.tables.entry(table.listener).or_default();
            let state = registry.tables.get(&table.listener);
            let step = known.turn_to(table, state.map(|state| state.digest), &mut registry.names);
            steps.extend(step.map(|way| Step {
                listener: table.listener,
                digest: known.digest,
                way,
            }));
        }
        let is_planned = |listener: &u16| tables.iter().any(|own| own.listener == *listener);
        let gone: Vec<u16> = self
            .tables
            .keys()
            .chain(registry.tables.keys())
            .copied()
            .collect();
        for listener in gone.into_iter().filter(|own| !is_planned(own)) {
            let known = self.tables.remove(&listener).unwrap_or_default();
            let mut text = String::new();
            for (pattern, ..) in rows(&stretches(&known.parts)) {
                if let Some(number) = registry.names.of(written(pattern, &mut text)) {
                    registry.names.unlist(number);
                }
            }
            if registry.tables.contains_key(&listener)
                && !steps.iter().any(|own| own.listener == listener)
            {
                steps.push(Step {
                    listener,
                    digest: 0,
                    way: Way::Gone {
                        former: known.is_written.then_some(known.parts),
                    },
                });
            }
        }
        steps
    }

    /// The map holds what is listed for a listener.
    pub fn is_written(&mut self, listener: u16) {
        if let Some(known) = self.tables.get_mut(&listener) {
            known.is_written = true;
        }
    }
}

impl Known {
    /// The step to `table`, if there is anything to do; `in_map` is the digest that the registry has.
    fn turn_to(
        &mut self,
        table: &NameTable,
        in_map: Option<u64>,
        names: &mut Names,
    ) -> Option<Way> {
        let former = std::mem::replace(&mut self.parts, table.parts.clone());
        let was_written = std::mem::take(&mut self.is_written);
        let (was, now) = between(&former, &self.parts);
        let mut text = String::new();
        let mut before = HashMap::new();
        let mut sum = self.digest;
        for (pattern, base, pool) in rows(&was) {
            if let Some(name) = names.of(written(pattern, &mut text)) {
                let entry = entry(name, base, pool);
                sum = sum.wrapping_sub(digest(pattern, &entry));
                before.insert(name, (pattern, entry));
            }
        }
        let mut gone: Vec<u32> = before.keys().copied().collect();
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (pattern, base, pool) in rows(&now) {
            let name = names.number(written(pattern, &mut text));
            names.list(name);
            let entry = entry(name, base, pool);
            sum = sum.wrapping_add(digest(pattern, &entry));
            match before.remove(&name) {
                None => added.push((pattern, entry)),
                Some((_, former)) if former != entry => changed.push((pattern, entry)),
                Some(_) => {}
            }
        }
        gone.drain(..).for_each(|name| names.unlist(name));
        self.digest = sum;
        if !was_written {
            // Of an empty table there is nothing to compare, and 0 stands for one that nobody knows.
            let same = in_map == Some(sum) && sum != 0;
            self.is_written = same;
            return (!same).then(|| Way::Anew {
                parts: self.parts.clone(),
                former: None,
            });
        }
        let count = added.len() + changed.len() + before.len();
        if count == 0 {
            self.is_written = true;
            return None;
        }
        if count > FEW && count * SHARE > table.len() {
            return Some(Way::Anew {
                parts: self.parts.clone(),
                former: Some(former.clone()),
            });
        }
        // A name that goes over from a wildcard of the former names to a name of the new ones, or back, must not
        // meet anything between: the longest come first and go last.
        let length = |pattern: &Pattern| pattern.key(0).0;
        added.sort_by_key(|(pattern, _)| std::cmp::Reverse(length(pattern)));
        let mut removed: Vec<Pattern> = before.values().map(|(pattern, _)| **pattern).collect();
        removed.sort_by_key(length);
        let put = added.into_iter().chain(changed);
        Some(Way::InPlace {
            put: put.map(|(pattern, entry)| (*pattern, entry)).collect(),
            gone: removed,
        })
    }
}

/// Names in a row, and the first path and pool that they lead to.
pub type Stretch<'a> = (&'a [Pattern], u16, u16);

/// All names of some parts.
pub fn stretches(parts: &[Part]) -> Vec<Stretch<'_>> {
    let parts = parts.iter();
    parts
        .map(|part| (part.route.names.as_slice(), part.base, part.pool))
        .collect()
}

/// Each name with its first path and pool.
pub fn rows<'a>(stretches: &[Stretch<'a>]) -> impl Iterator<Item = (&'a Pattern, u16, u16)> {
    let each = |(names, base, pool): &Stretch<'a>| {
        let (base, pool) = (*base, *pool);
        names.iter().map(move |name| (name, base, pool))
    };
    stretches.iter().flat_map(each)
}

/// What is left of two tables without what they begin and end with alike.
fn between<'a>(was: &'a [Part], now: &'a [Part]) -> (Vec<Stretch<'a>>, Vec<Stretch<'a>>) {
    let leads_alike = |a: &Part, b: &Part| (a.base, a.pool) == (b.base, b.pool);
    let alike = |(a, b): &(&Part, &Part)| {
        leads_alike(a, b) && (Arc::ptr_eq(&a.route, &b.route) || a.route.names == b.route.names)
    };
    let (front, back) = ends(was, now, alike);
    let (was, now) = (&was[front..was.len() - back], &now[front..now.len() - back]);
    let (mut was_names, mut now_names) = (stretches(was), stretches(now));
    if let ([a], [b]) = (was, now)
        && leads_alike(a, b)
    {
        let (old, new) = (&a.route.names, &b.route.names);
        let (front, back) = ends(old, new, |(a, b)| a == b);
        was_names[0].0 = &old[front..old.len() - back];
        now_names[0].0 = &new[front..new.len() - back];
    }
    (was_names, now_names)
}

/// How many elements two lists have in common at the beginning and, of the others, at the end.
fn ends<T>(a: &[T], b: &[T], alike: impl Fn(&(&T, &T)) -> bool) -> (usize, usize) {
    let front = a.iter().zip(b).take_while(&alike).count();
    let rest = a[front..].iter().rev().zip(b[front..].iter().rev());
    (front, rest.take_while(&alike).count())
}

/// The value of a row.
pub fn entry(name: u32, path_base: u16, pool: u16) -> NameEntry {
    NameEntry {
        name,
        path_base,
        pool,
    }
}

/// A pattern as text, without a string for each.
pub fn written<'a>(pattern: &Pattern, to: &'a mut String) -> &'a str {
    use std::fmt::Write;
    to.clear();
    // A string takes everything.
    let _ = write!(to, "{pattern}");
    to
}

/// The digest of a table is the sum of those of its rows. It tells tables apart within one boot of one machine; no
/// adversary chooses both.
fn digest(pattern: &Pattern, entry: &NameEntry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        pattern.kind(),
        pattern.name(),
        entry.name,
        entry.path_base,
        entry.pool,
    )
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Route;

    fn table(parts: &[(&[&str], u16)]) -> NameTable {
        let part = |(names, base): &(&[&str], u16)| Part {
            base: *base,
            pool: 0,
            route: Arc::new(Route {
                names: names
                    .iter()
                    .map(|own| Pattern::parse(own).unwrap())
                    .collect(),
                pool: 0,
                listeners: vec![0],
            }),
        };
        NameTable {
            listener: 0,
            parts: parts.iter().map(part).collect(),
        }
    }

    const MANY: &[&str] = &["a.org", "b.org", "c.org", "d.org"];

    /// The steps from one table to another, as text.
    fn steps(from: &[(&[&str], u16)], to: &[(&[&str], u16)]) -> Vec<String> {
        let mut listed = Listed::default();
        let mut registry = Registry::default();
        listed.steps(&[table(from)], &mut registry);
        listed.is_written(0);
        let steps = listed.steps(&[table(to)], &mut registry);
        assert!(registry.names.is_live(0) || to.is_empty());
        let Some(step) = steps.first() else {
            return Vec::new();
        };
        match &step.way {
            Way::InPlace { put, gone } => {
                let put = put
                    .iter()
                    .map(|(pattern, entry)| format!("+{pattern}={}", entry.path_base));
                put.chain(gone.iter().map(|own| format!("-{own}")))
                    .collect()
            }
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn only_what_changes_is_touched() {
        let fifth = &["e.org"][..];
        assert_eq!(steps(&[(MANY, 0)], &[(MANY, 0)]), [""; 0]);
        assert_eq!(steps(&[(MANY, 0)], &[(MANY, 0), (fifth, 4)]), ["+e.org=4"]);
        assert_eq!(steps(&[(MANY, 0), (fifth, 4)], &[(MANY, 0)]), ["-e.org"]);
        let without = &["a.org", "b.org", "d.org"][..];
        assert_eq!(steps(&[(MANY, 0)], &[(without, 0)]), ["-c.org"]);
        assert_eq!(
            steps(&[(MANY, 0), (fifth, 4)], &[(MANY, 0), (fifth, 5)]),
            ["+e.org=5"]
        );
        let moved = [(&["a.org", "b.org", "c.org"][..], 0), (&["d.org"][..], 7)];
        assert_eq!(steps(&[(MANY, 0)], &moved), ["+d.org=7"]);
    }

    #[test]
    fn the_longest_names_come_first_and_go_last() {
        let wild = &["*.org", "*.a.org", "x.a.org"][..];
        assert_eq!(
            steps(&[(MANY, 0)], &[(MANY, 0), (wild, 1)]),
            ["+x.a.org=1", "+*.a.org=1", "+*.org=1"]
        );
        assert_eq!(
            steps(&[(MANY, 0), (wild, 1)], &[(MANY, 0)]),
            ["-*.org", "-*.a.org", "-x.a.org"]
        );
    }

    #[test]
    fn a_table_that_is_known_by_its_digest_is_not_written() {
        let mut registry = Registry::default();
        let steps = Listed::default().steps(&[table(&[(MANY, 0)])], &mut registry);
        assert!(matches!(steps[0].way, Way::Anew { .. }));
        let state = crate::dataplane::registry::TableState {
            id: 1,
            digest: steps[0].digest,
        };
        registry.tables.insert(0, state);
        assert!(
            Listed::default()
                .steps(&[table(&[(MANY, 0)])], &mut registry)
                .is_empty()
        );
        let other = Listed::default().steps(&[table(&[(MANY, 1)])], &mut registry);
        assert!(matches!(other[0].way, Way::Anew { .. }));
    }

    #[test]
    fn another_table_is_written_anew() {
        let names: Vec<String> = (0..64).map(|at| format!("n{at}.org")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let step = steps(&[(&names, 0)], &[(&names, 1)]);
        assert!(step[0].starts_with("Anew"), "{step:?}");
    }
}
