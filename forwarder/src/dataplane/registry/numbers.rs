//! Numbers for things: dense, stable, and given away again only after release.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// Numbers for things of one sort: dense, stable, reused only after release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Option<K>>", into = "Vec<Option<K>>")]
pub struct Numbers<K: Eq + Hash + Clone> {
    slots: Vec<Option<K>>,
    index: HashMap<K, usize>,
    live: BTreeSet<usize>,
    /// Below this every slot is taken.
    full_below: usize,
}

impl<K: Eq + Hash + Clone> Default for Numbers<K> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<K: Eq + Hash + Clone> From<Vec<Option<K>>> for Numbers<K> {
    fn from(slots: Vec<Option<K>>) -> Self {
        let numbered = slots.iter().enumerate();
        let index = numbered.filter_map(|(number, key)| Some((key.clone()?, number)));
        Self {
            index: index.collect(),
            slots,
            live: BTreeSet::new(),
            full_below: 0,
        }
    }
}

impl<K: Eq + Hash + Clone> From<Numbers<K>> for Vec<Option<K>> {
    fn from(numbers: Numbers<K>) -> Self {
        numbers.slots
    }
}

impl<K: Eq + Hash + Clone> Numbers<K> {
    /// The number of `key`, a new one if it has none; marks it as configured.
    pub fn number(&mut self, key: &K) -> usize {
        if let Some(number) = self.index.get(key) {
            self.live.insert(*number);
            return *number;
        }
        let free = (self.full_below..self.slots.len()).find(|at| self.slots[*at].is_none());
        let number = free.unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        self.full_below = number + 1;
        self.slots[number] = Some(key.clone());
        self.index.insert(key.clone(), number);
        self.live.insert(number);
        number
    }

    /// Enters a number that is known from elsewhere, as something that lingers. Says whether it was free.
    pub fn restore(&mut self, number: usize, key: K) -> bool {
        if self.slots.len() <= number {
            self.slots.resize(number + 1, None);
        }
        let free = self.slots[number].is_none() && !self.index.contains_key(&key);
        if free {
            self.slots[number] = Some(key.clone());
            self.index.insert(key, number);
        }
        free
    }

    /// What `number` stands for.
    pub fn key(&self, number: usize) -> Option<&K> {
        self.slots.get(number)?.as_ref()
    }

    /// Whether `number` is configured, as far as this process has asked.
    pub fn is_live(&self, number: usize) -> bool {
        self.live.contains(&number)
    }

    /// All numbers given, configured or not.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &K)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(number, key)| Some((number, key.as_ref()?)))
    }

    /// One more than the highest number given.
    pub fn end(&self) -> usize {
        self.slots.len()
    }

    /// Starts over with what is configured.
    pub(super) fn begin(&mut self) {
        self.live.clear();
    }

    /// Whether anything is numbered that is not configured.
    pub(super) fn has_lingering(&self) -> bool {
        self.index.len() > self.live.len()
    }

    /// Frees what is neither configured nor `used`; returns it.
    pub(super) fn release(&mut self, used: impl Fn(usize) -> bool) -> Vec<(usize, K)> {
        let mut released = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if !self.live.contains(&number)
                && !used(number)
                && let Some(key) = slot.take()
            {
                self.index.remove(&key);
                released.push((number, key));
            }
        }
        while self.slots.pop_if(|last| last.is_none()).is_some() {}
        self.full_below = 0;
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_reused_only_after_release() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.number(&"a"), 0);
        assert_eq!(numbers.number(&"b"), 1);
        assert_eq!(numbers.number(&"a"), 0);
        numbers.begin();
        assert_eq!(numbers.number(&"b"), 1);
        assert_eq!(numbers.number(&"c"), 2, "0 lingers");
        assert!(numbers.has_lingering());
        assert_eq!(numbers.release(|n| n == 0), []);
        assert_eq!(numbers.release(|_| false), [(0, "a")]);
        assert_eq!(numbers.number(&"d"), 0);
        assert!(!numbers.has_lingering());
    }
}
