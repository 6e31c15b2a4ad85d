//! A table of fixed length whose parts are made when they are first needed: a channel that is little used is small.

use std::sync::OnceLock;

/// Entries of a part. The first part is there from the start: most channels need no other.
pub(crate) const PART: usize = 64;

/// See the [module's documentation](self).
pub(crate) struct Table<T> {
    first: Box<[T]>,
    others: Box<[OnceLock<Box<[T]>>]>,
    len: usize,
    new: fn() -> T,
}

impl<T> Table<T> {
    /// A table of `len` entries, which are what `new` makes.
    pub(crate) fn new(len: usize, new: fn() -> T) -> Self {
        let others = len.div_ceil(PART).saturating_sub(1);
        Self {
            first: (0..len.min(PART)).map(|_| new()).collect(),
            others: (0..others).map(|_| OnceLock::new()).collect(),
            len,
            new,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Entry `index`; `None` beyond the end.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match self.first.get(index) {
            None => self.get_other(index),
            entry => entry,
        }
    }

    #[inline(never)]
    fn get_other(&self, index: usize) -> Option<&T> {
        let others = self.len.checked_sub(PART)?;
        let index = index - PART;
        if index >= others {
            return None;
        }
        let len = PART.min(others - index / PART * PART);
        let make = || (0..len).map(|_| (self.new)()).collect();
        self.others[index / PART]
            .get_or_init(make)
            .get(index % PART)
    }

    /// The entries of a part, if they have been made.
    pub(crate) fn part(&self, part: usize) -> Option<&[T]> {
        match part.checked_sub(1) {
            None => Some(&self.first),
            Some(other) => self.others.get(other)?.get().map(|part| &**part),
        }
    }

    /// The entries that have been made, each with its index: all that were ever asked for are among them.
    pub(crate) fn made(&self) -> impl Iterator<Item = (usize, &T)> {
        let entries = |part| self.part(part).into_iter().flatten().enumerate();
        (0..=self.others.len())
            .flat_map(move |part| entries(part).map(move |(i, entry)| (part * PART + i, entry)))
    }
}

impl<T> std::ops::Index<usize> for Table<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: usize) -> &T {
        self.get(index).unwrap_or_else(|| beyond(index, self.len))
    }
}

#[cold]
fn beyond(index: usize, len: usize) -> ! {
    panic!("entry {index} of {len}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_table_has_its_length_and_makes_only_the_parts_that_are_asked_for() {
        for len in [1, 63, 64, 65, 128, 1000] {
            let table = Table::new(len, AtomicUsize::default);
            assert!(table.get(len).is_none() && table.get(usize::MAX).is_none());
            assert_eq!(table.made().count(), len.min(PART));
            table[len - 1].store(7, Ordering::Relaxed);
            let (index, last) = table.made().last().expect("not empty");
            assert_eq!((index, last.load(Ordering::Relaxed)), (len - 1, 7));
            assert!((0..len).all(|i| table.get(i).is_some()));
            assert_eq!(table.made().count(), len);
            assert!(table.made().enumerate().all(|(i, (index, _))| i == index));
        }
    }
}
