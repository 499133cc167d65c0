//! What the name tables hold, and the steps from there to what they should hold.
//!
//! The daemon remembers which routes made each table, and the numbers of their names: the routes of a configuration
//! are shared, and two lists of names that begin and end alike are compared in one pass. Only what lies between is
//! looked at name by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forwarder_common::abi::NameEntry;

use crate::config::model::{Pattern, Route};
use crate::dataplane::plan::{NameTable, Part};
use crate::dataplane::registry::Registry;
use crate::dataplane::registry::names::Names;

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
    listings: Vec<Listing>,
    digest: u64,
    /// Whether the map holds just that.
    is_written: bool,
}

/// The names of one route on one listener, with their numbers.
#[derive(Clone, Debug)]
pub struct Listing {
    part: Part,
    /// Of the route's names, in their order.
    numbers: Arc<[u32]>,
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
        listings: Vec<Listing>,
        /// Those of the former table, if they are known.
        former: Option<Vec<Listing>>,
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
        former: Option<Vec<Listing>>,
    },
}

impl Listed {
    /// The steps to `tables`. From now on these are the listed ones; whether the maps say so too is told by
    /// [`Self::is_written`].
    pub fn steps(&mut self, tables: &[NameTable], registry: &mut Registry) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut numbered = Numbered::default();
        for table in tables {
            let known = self.tables.entry(table.listener).or_default();
            let state = registry.tables.get(&table.listener);
            let digest = state.map(|state| state.digest);
            let step = known.turn_to(table, digest, &mut registry.names, &mut numbered);
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
            for number in known.listings.iter().flat_map(|own| own.numbers.iter()) {
                registry.names.unlist(*number);
            }
            if registry.tables.contains_key(&listener)
                && !steps.iter().any(|own| own.listener == listener)
            {
                steps.push(Step {
                    listener,
                    digest: 0,
                    way: Way::Gone {
                        former: known.is_written.then_some(known.listings),
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
        numbered: &mut Numbered,
    ) -> Option<Way> {
        let former = std::mem::take(&mut self.listings);
        let was_written = std::mem::take(&mut self.is_written);
        let between = Between::of(&former, &table.parts);
        self.listings = between.numbered(&former, &table.parts, names, numbered);
        let mut was = between.rows(&former, between.was);
        let mut now = between.rows(&self.listings, between.now);
        for row in &now {
            names.list(row.entry().name);
            self.digest = self.digest.wrapping_add(digest(row));
        }
        for row in &was {
            names.unlist(row.entry().name);
            self.digest = self.digest.wrapping_sub(digest(row));
        }
        if !was_written {
            // Of an empty table there is nothing to compare, and 0 stands for one that nobody knows.
            let same = in_map == Some(self.digest) && self.digest != 0;
            self.is_written = same;
            return (!same).then(|| Way::Anew {
                listings: self.listings.clone(),
                former: None,
            });
        }
        was.sort_unstable_by_key(|row| row.packed);
        now.sort_unstable_by_key(|row| row.packed);
        let mut count = 0;
        compare(&was, &now, |_| count += 1);
        if count == 0 {
            self.is_written = true;
            return None;
        }
        if count > FEW && count * SHARE > table.len() {
            return Some(Way::Anew {
                listings: self.listings.clone(),
                former: Some(former),
            });
        }
        Some(in_place(&was, &now))
    }
}

fn in_place(was: &[Row<'_>], now: &[Row<'_>]) -> Way {
    let (mut added, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    compare(was, now, |change| match change {
        Change::Added(row) => added.push((row.pattern.clone(), row.entry())),
        Change::Changed(row) => changed.push((row.pattern.clone(), row.entry())),
        Change::Gone(row) => gone.push(row.pattern.clone()),
    });
    // A name that goes over from a wildcard of the former names to a name of the new ones, or back, must not
    // meet anything between: the longest come first and go last.
    let length = |pattern: &Pattern| pattern.key(0).0;
    added.sort_by_key(|(pattern, _)| Reverse(length(pattern)));
    gone.sort_by_key(length);
    added.extend(changed);
    Way::InPlace { put: added, gone }
}

/// Names of one route in a row, at most as many as go into one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    names: &'a [Pattern],
    numbers: &'a [u32],
    base: u16,
    pool: u16,
}

impl<'a> Stretch<'a> {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Each name and what it leads to.
    pub fn iter(self) -> impl Iterator<Item = (&'a Pattern, NameEntry)> {
        let entry = move |number: u32| NameEntry {
            name: number,
            path_base: self.base,
            pool: self.pool,
        };
        let numbers = self.numbers.iter().map(move |number| entry(*number));
        self.names.iter().zip(numbers)
    }
}

impl Listing {
    /// The names, so many at a time.
    pub fn stretches(&self, most: usize) -> impl Iterator<Item = Stretch<'_>> {
        let names = self.part.route.names.chunks(most);
        names
            .zip(self.numbers.chunks(most))
            .map(|(names, numbers)| Stretch {
                names,
                numbers,
                base: self.part.base,
                pool: self.part.pool,
            })
    }
}

/// A row of a table: its entry in one word, by which rows are sorted, the name's number first.
#[derive(Clone, Copy)]
struct Row<'a> {
    packed: u64,
    pattern: &'a Pattern,
}

impl Row<'_> {
    fn entry(&self) -> NameEntry {
        NameEntry {
            name: (self.packed >> 32) as u32,
            path_base: (self.packed >> 16) as u16,
            pool: self.packed as u16,
        }
    }
}

enum Change<'a> {
    Added(&'a Row<'a>),
    Changed(&'a Row<'a>),
    Gone(&'a Row<'a>),
}

/// What differs between sorted rows.
fn compare<'a>(was: &'a [Row<'a>], now: &'a [Row<'a>], mut each: impl FnMut(Change<'a>)) {
    let (mut was, mut now) = (was.iter().peekable(), now.iter().peekable());
    loop {
        let number = |row: Option<&&Row<'_>>| row.map_or(u64::MAX, |row| row.packed >> 32);
        let (old, new) = (number(was.peek()), number(now.peek()));
        let pair = (was.next_if(|_| old <= new), now.next_if(|_| new <= old));
        match pair {
            (Some(old), Some(new)) if old.packed != new.packed => each(Change::Changed(new)),
            (Some(_), Some(_)) => {}
            (Some(old), None) => each(Change::Gone(old)),
            (None, Some(new)) => each(Change::Added(new)),
            (None, None) => return,
        }
    }
}

/// What two tables begin and end with alike, and what lies between.
#[derive(Clone, Copy)]
struct Between {
    /// Parts that are alike.
    front: usize,
    back: usize,
    /// Where one part stands against one, names of it that are alike.
    names_front: usize,
    names_back: usize,
    /// How many parts lie between.
    was: usize,
    now: usize,
}

impl Between {
    fn of(was: &[Listing], now: &[Part]) -> Self {
        let leads_alike = |a: &Listing, b: &Part| (a.part.base, a.part.pool) == (b.base, b.pool);
        let alike = |a: &Listing, b: &Part| {
            let (old, new) = (&a.part.route, &b.route);
            leads_alike(a, b) && (Arc::ptr_eq(old, new) || old.names == new.names)
        };
        let (front, back) = ends(was, now, alike);
        let mut own = Self {
            front,
            back,
            names_front: 0,
            names_back: 0,
            was: was.len() - front - back,
            now: now.len() - front - back,
        };
        if let ([a], [b]) = (&was[front..was.len() - back], &now[front..now.len() - back])
            && leads_alike(a, b)
        {
            let (old, new) = (&a.part.route.names, &b.route.names);
            (own.names_front, own.names_back) = ends(old, new, |a, b| a == b);
        }
        own
    }

    /// The parts with the numbers of their names; what is alike has them already.
    fn numbered(
        &self,
        was: &[Listing],
        now: &[Part],
        names: &mut Names,
        numbered: &mut Numbered,
    ) -> Vec<Listing> {
        let mut listings = Vec::with_capacity(now.len());
        for (at, part) in now.iter().enumerate() {
            let alike = if at < self.front {
                Some(&was[at])
            } else {
                let from_end = now.len() - at;
                (from_end <= self.back).then(|| &was[was.len() - from_end])
            };
            let numbers = match alike {
                Some(alike) => Arc::clone(&alike.numbers),
                // Where few are alike, they may be those of another listener.
                None if 2 * (self.names_front + self.names_back) > part.route.names.len() => {
                    let (known, new) = (&was[self.front].numbers, &part.route.names);
                    let new = &new[self.names_front..new.len() - self.names_back];
                    let mut numbers = Vec::with_capacity(part.route.names.len());
                    numbers.extend(&known[..self.names_front]);
                    numbers.extend(new.iter().map(|own| names.number(Arc::clone(own.text()))));
                    numbers.extend(&known[known.len() - self.names_back..]);
                    numbers.into()
                }
                None => numbered.of(&part.route, names),
            };
            listings.push(Listing {
                part: part.clone(),
                numbers,
            });
        }
        listings
    }

    /// The rows of the `count` parts that lie between.
    fn rows<'a>(&self, listings: &'a [Listing], count: usize) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        for listing in listings.iter().skip(self.front).take(count) {
            let names = &listing.part.route.names;
            let alike = self.names_front..names.len() - self.names_back;
            let lead = u64::from(listing.part.base) << 16 | u64::from(listing.part.pool);
            let own = names[alike.clone()].iter().zip(&listing.numbers[alike]);
            rows.extend(own.map(|(pattern, number)| Row {
                packed: u64::from(*number) << 32 | lead,
                pattern,
            }));
        }
        rows
    }
}

/// A route and the numbers of its names.
type List = (Arc<Route>, Arc<[u32]>);

/// Numbers that were asked for already: listeners often have the same names.
#[derive(Default)]
struct Numbered {
    /// By the first name of a route and how many there are.
    lists: HashMap<(Pattern, usize), List>,
}

impl Numbered {
    fn of(&mut self, route: &Arc<Route>, names: &mut Names) -> Arc<[u32]> {
        let Some(first) = route.names.first() else {
            return Arc::default();
        };
        let known = self.lists.get(&(first.clone(), route.names.len()));
        if let Some((other, numbers)) = known
            && (Arc::ptr_eq(other, route) || other.names == route.names)
        {
            return Arc::clone(numbers);
        }
        names.reserve(route.names.len());
        let numbers = route.names.iter();
        let numbers = numbers.map(|own| names.number(Arc::clone(own.text())));
        let numbers: Arc<[u32]> = numbers.collect();
        let key = (first.clone(), route.names.len());
        let list = (Arc::clone(route), Arc::clone(&numbers));
        self.lists.insert(key, list);
        numbers
    }
}

/// How many elements two lists have in common at the beginning and, of the others, at the end.
fn ends<A, B>(a: &[A], b: &[B], alike: impl Fn(&A, &B) -> bool) -> (usize, usize) {
    let both = |(a, b): &(&A, &B)| alike(a, b);
    let front = a.iter().zip(b).take_while(both).count();
    let rest = a[front..].iter().rev().zip(b[front..].iter().rev());
    (front, rest.take_while(both).count())
}

/// The digest of a table is the sum of those of its rows, in which numbers stand for names. It tells tables apart
/// within one boot of one machine; no adversary chooses both. The finalizer of MurmurHash3.
fn digest(row: &Row<'_>) -> u64 {
    let mut hash = row.packed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
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
