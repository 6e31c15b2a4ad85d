//! Where the future of a handler is polled first: memory that is used again by the next call.
//!
//! A cell for each procedure and thread, empty between two dispatches. A dispatch inside a dispatch of the same
//! procedure finds none, and makes another; a future that is not done at its first poll keeps its cell.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place for a future, pinned while it is there.
pub(crate) type Cell<Fut> = Pin<Box<Option<Fut>>>;

thread_local! {
    /// By the numbers of `Cells`.
    static CELLS: RefCell<Vec<Option<Box<dyn Any>>>> = const { RefCell::new(Vec::new()) };
}

/// The cells of one procedure, in all threads.
pub(crate) struct Cells<Fut> {
    /// No other `Cells` has this number, so what lies there is of the one type `Fut`.
    number: usize,
    _of: PhantomData<fn() -> Fut>,
}

impl<Fut: 'static> Cells<Fut> {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < usize::MAX, "more procedures than numbers");
        Self {
            number,
            _of: PhantomData,
        }
    }

    /// An empty cell.
    #[inline]
    pub(crate) fn take(&self) -> Cell<Fut> {
        let kept = CELLS.with_borrow_mut(|cells| cells.get_mut(self.number).and_then(Option::take));
        let Some(kept) = kept else {
            return Box::pin(None);
        };
        debug_assert!(kept.is::<Option<Fut>>());
        // SAFETY: only `put` below fills this place, and for this number only with boxes of `Option<Fut>`. (The
        // safe way to say so compares two type ids, which costs as much as the rest of a dispatch.)
        let cell = unsafe { Box::from_raw(Box::into_raw(kept).cast::<Option<Fut>>()) };
        Box::into_pin(cell)
    }

    /// Keeps a cell for the next call. What is in it is dropped.
    #[inline]
    pub(crate) fn put(&self, mut cell: Cell<Fut>) {
        cell.set(None);
        // SAFETY: there is no future any more that would have to stay where it is.
        let cell: Box<dyn Any> = unsafe { Pin::into_inner_unchecked(cell) };
        CELLS.with_borrow_mut(|cells| match cells.get_mut(self.number) {
            Some(place) if place.is_none() => *place = Some(cell),
            _ => put_first(cells, self.number, cell),
        });
    }
}

#[cold]
fn put_first(cells: &mut Vec<Option<Box<dyn Any>>>, number: usize, cell: Box<dyn Any>) {
    if cells.len() <= number {
        cells.resize_with(number + 1, || None);
    }
    cells[number] = Some(cell); // an empty one goes, if there was one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_used_again_and_a_second_one_made_meanwhile() {
        let cells = Cells::<std::future::Ready<u8>>::new();
        let others = Cells::<String>::new();
        let mut cell = cells.take();
        cell.set(Some(std::future::ready(1)));
        let place = &raw const *cell;
        let second = cells.take();
        assert!(second.is_none());
        others.put(Box::pin(Some("not a future, but never mind".into())));
        cells.put(cell);
        let again = cells.take();
        assert!(std::ptr::eq(&raw const *again, place) && again.is_none());
        cells.put(again);
        cells.put(second);
        assert!(cells.take().is_none() && others.take().is_none());
    }
}
