//! Numbers of listed names. There may be a million of them, and a change touches a few: nothing here but making
//! and reading the whole takes longer the more there are, and copies share what they hold.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names and patterns as text, each with a number that is dense, stable, and given away again only after release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Arc<Inner>);

#[derive(Clone, Debug, Default)]
struct Inner {
    slots: Vec<Option<Arc<str>>>,
    index: Index,
    /// On how many listeners each is listed.
    listed: Vec<u32>,
    /// Numbered, and listed nowhere.
    lingering: NumberSet,
    /// Slots that are empty.
    free: NumberSet,
    /// What the file does not say yet: numbers given, and numbers set free.
    unsaved: Vec<(u32, Option<Arc<str>>)>,
}

impl Names {
    /// The number of a name, if it has one.
    pub fn of(&self, name: &str) -> Option<u32> {
        self.0.index.find(name, &self.0.slots)
    }

    /// Makes room for so many more at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        let own = Arc::make_mut(&mut self.0);
        own.index.reserve(more);
        own.slots.reserve(more);
        own.listed.reserve(more);
        own.unsaved.reserve(more);
    }

    /// The number of a name, a new one if it has none.
    pub fn number<T: AsRef<str> + Into<Arc<str>>>(&mut self, name: T) -> u32 {
        if let Some(number) = self.of(name.as_ref()) {
            return number;
        }
        let own = Arc::make_mut(&mut self.0);
        // A map holds fewer than 2³² names.
        let end = u32::try_from(own.slots.len()).unwrap_or(u32::MAX);
        let number = own.free.pop_first().unwrap_or(end);
        own.enter(number, name.into());
        number
    }

    /// Enters a number that is known from elsewhere, as something that lingers. Says whether it was free.
    pub fn restore(&mut self, number: u32, name: String) -> bool {
        let free = self.key(number as usize).is_none() && self.of(&name).is_none();
        if free {
            Arc::make_mut(&mut self.0).enter(number, name.into());
        }
        free
    }

    /// A listener lists the name from now on.
    pub(crate) fn list(&mut self, number: u32) {
        let own = Arc::make_mut(&mut self.0);
        if let Some(listed) = own.listed.get_mut(number as usize) {
            *listed += 1;
            if *listed == 1 {
                own.lingering.remove(number);
            }
        }
    }

    /// A listener lists it no more.
    pub(crate) fn unlist(&mut self, number: u32) {
        let own = Arc::make_mut(&mut self.0);
        if let Some(listed) = own.listed.get_mut(number as usize)
            && *listed > 0
        {
            *listed -= 1;
            if *listed == 0 {
                own.lingering.insert(number);
            }
        }
    }

    /// What `number` stands for.
    pub fn key(&self, number: usize) -> Option<&str> {
        self.0.slots.get(number)?.as_deref()
    }

    /// Whether a listener lists `number`, as far as this process has asked.
    pub fn is_live(&self, number: usize) -> bool {
        self.0.listed.get(number).is_some_and(|listed| *listed > 0)
    }

    /// One more than the highest number given.
    pub fn end(&self) -> usize {
        self.0.slots.len()
    }

    /// How many names have one.
    pub fn count(&self) -> usize {
        self.0.index.numbers.len()
    }

    /// Whether anything is numbered that is listed nowhere.
    pub(crate) fn has_lingering(&self) -> bool {
        !self.0.lingering.is_empty()
    }

    /// Frees what is neither listed nor `used`.
    pub(crate) fn release(&mut self, used: impl Fn(u32) -> bool) {
        let lingering = self.0.lingering.iter();
        let gone: Vec<u32> = lingering.filter(|number| !used(*number)).collect();
        if gone.is_empty() {
            return;
        }
        let own = Arc::make_mut(&mut self.0);
        for number in gone {
            own.leave(number);
        }
    }

    /// What the file does not say yet.
    pub(crate) fn take_unsaved(&mut self) -> Vec<(u32, Option<Arc<str>>)> {
        if self.0.unsaved.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut Arc::make_mut(&mut self.0).unsaved)
    }

    /// Takes in what [`Self::take_unsaved`] gave.
    pub(crate) fn replay(&mut self, changes: Vec<(u32, Option<Arc<str>>)>) {
        let own = Arc::make_mut(&mut self.0);
        for (number, name) in changes {
            match name {
                Some(name) => own.enter(number, name),
                None => own.leave(number),
            }
        }
        own.unsaved.clear();
    }
}

impl Inner {
    fn enter(&mut self, number: u32, name: Arc<str>) {
        let at = number as usize;
        while self.slots.len() <= at {
            self.free.insert(self.slots.len() as u32);
            self.slots.push(None);
            self.listed.push(0);
        }
        self.free.remove(number);
        self.unsaved.push((number, Some(Arc::clone(&name))));
        self.index.insert(&name, number);
        self.slots[at] = Some(name);
        self.lingering.insert(number);
    }

    fn leave(&mut self, number: u32) {
        let Some(name) = self.slots.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        self.index.remove(&name, number);
        self.lingering.remove(number);
        self.free.insert(number);
        self.unsaved.push((number, None));
        while self.slots.pop_if(|last| last.is_none()).is_some() {
            self.listed.pop();
            self.free.remove(self.slots.len() as u32);
        }
    }
}

impl PartialEq for Inner {
    fn eq(&self, other: &Self) -> bool {
        (&self.slots, &self.listed, &self.unsaved) == (&other.slots, &other.listed, &other.unsaved)
    }
}

impl Eq for Inner {}

/// Finds numbers by name. It holds hashes in place of the names, which stand in the slots: to grow it need not look
/// at them.
#[derive(Clone, Debug, Default)]
struct Index {
    numbers: HashTable<(u64, u32)>,
    state: RandomState,
}

impl Index {
    fn find(&self, name: &str, slots: &[Option<Arc<str>>]) -> Option<u32> {
        let hash = self.state.hash_one(name);
        let is_it = |(own, number): &(u64, u32)| {
            let text = || slots.get(*number as usize)?.as_deref();
            *own == hash && text() == Some(name)
        };
        self.numbers.find(hash, is_it).map(|(_, number)| *number)
    }

    /// Enters a name that is not there.
    fn insert(&mut self, name: &str, number: u32) {
        let hash = self.state.hash_one(name);
        self.numbers
            .insert_unique(hash, (hash, number), |(hash, _)| *hash);
    }

    fn remove(&mut self, name: &str, number: u32) {
        let hash = self.state.hash_one(name);
        let is_it = |(_, own): &(u64, u32)| *own == number;
        if let Ok(found) = self.numbers.find_entry(hash, is_it) {
            found.remove();
        }
    }

    fn reserve(&mut self, more: usize) {
        self.numbers.reserve(more, |(hash, _)| *hash);
    }
}

/// Numbers as bits: a million of them are 125 KB, and to look for the first passes over 64 at once.
#[derive(Clone, Debug, Default)]
struct NumberSet {
    words: Vec<u64>,
    count: usize,
    /// No word before this one has any.
    first: usize,
}

impl NumberSet {
    fn insert(&mut self, number: u32) {
        let (at, bit) = (number as usize / 64, 1 << (number % 64));
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.count += usize::from(self.words[at] & bit == 0);
        self.words[at] |= bit;
        self.first = self.first.min(at);
    }

    fn remove(&mut self, number: u32) {
        let (at, bit) = (number as usize / 64, 1 << (number % 64));
        if let Some(word) = self.words.get_mut(at) {
            self.count -= usize::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the lowest out.
    fn pop_first(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        while *self.words.get(self.first)? == 0 {
            self.first += 1;
        }
        let number = self.first as u32 * 64 + self.words[self.first].trailing_zeros();
        self.remove(number);
        Some(number)
    }

    /// All, from the lowest on.
    fn iter(&self) -> impl Iterator<Item = u32> {
        let words = (0_u32..).zip(&self.words).filter(|(_, word)| **word != 0);
        words.flat_map(|(at, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 != 0);
            bits.map(move |bit| at * 64 + bit)
        })
    }
}

impl PartialEq for NumberSet {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for NumberSet {}

impl FromIterator<u32> for NumberSet {
    fn from_iter<T: IntoIterator<Item = u32>>(numbers: T) -> Self {
        let mut own = Self::default();
        numbers.into_iter().for_each(|number| own.insert(number));
        own
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.slots.iter().map(Option::as_deref))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slots = Vec::<Option<String>>::deserialize(deserializer)?;
        let slots: Vec<Option<Arc<str>>> =
            slots.into_iter().map(|own| own.map(Arc::from)).collect();
        let numbered = || (0_u32..).zip(&slots);
        let mut index = Index::default();
        index.reserve(slots.len());
        for (number, name) in numbered() {
            if let Some(name) = name {
                index.insert(name, number);
            }
        }
        let taken = |wanted: bool| {
            let slots = numbered().filter(move |(_, name)| name.is_some() == wanted);
            slots.map(|(number, _)| number)
        };
        Ok(Self(Arc::new(Inner {
            index,
            lingering: taken(true).collect(),
            free: taken(false).collect(),
            listed: vec![0; slots.len()],
            unsaved: Vec::new(),
            slots,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_reused_only_after_release() {
        let mut names = Names::default();
        assert_eq!((names.number("a"), names.number("b")), (0, 1));
        assert_eq!(names.number("a"), 0);
        names.list(0);
        names.list(1);
        assert!(!names.has_lingering());
        names.unlist(0);
        assert_eq!(names.number("c"), 2, "0 lingers");
        names.list(2);
        names.release(|number| number == 0);
        assert_eq!(names.key(0), Some("a"), "in use");
        names.release(|_| false);
        assert_eq!(names.key(0), None);
        assert_eq!(names.number("d"), 0);
        assert!(names.is_live(1) && !names.is_live(0));
    }

    #[test]
    fn sets_of_numbers_are_in_order() {
        let mut set: NumberSet = [300, 5, 64, 63].into_iter().collect();
        set.insert(5);
        assert_eq!(set.iter().collect::<Vec<_>>(), [5, 63, 64, 300]);
        assert_eq!((set.pop_first(), set.pop_first()), (Some(5), Some(63)));
        set.insert(2);
        set.remove(64);
        set.remove(64);
        assert_eq!(set.pop_first(), Some(2));
        assert_eq!(set, [300].into_iter().collect());
        assert_eq!((set.pop_first(), set.pop_first()), (Some(300), None));
        assert!(set.is_empty());
    }

    #[test]
    fn a_name_on_two_listeners_lives_as_long_as_either() {
        let mut names = Names::default();
        let number = names.number("a");
        names.list(number);
        names.list(number);
        names.unlist(number);
        assert!(names.is_live(0));
        names.unlist(number);
        assert!(!names.is_live(0) && names.has_lingering());
    }

    #[test]
    fn changes_lead_another_copy_to_the_same() {
        let mut names = Names::default();
        for name in ["a", "b", "c"] {
            let number = names.number(name);
            names.list(number);
        }
        let mut copy: Names =
            serde_json::from_str(&serde_json::to_string(&names).unwrap()).unwrap();
        names.take_unsaved();
        names.unlist(1);
        names.unlist(2);
        names.release(|_| false);
        names.number("d");
        names.number("e");
        copy.replay(names.take_unsaved());
        for at in 0..4 {
            assert_eq!(copy.key(at), names.key(at));
        }
        assert_eq!(copy.end(), names.end());
    }
}
