//! Where the future of a handler is polled first: memory that is used again by the next call.
//!
//! A cell for each procedure and thread. Between two dispatches there is no future in it, only what the next one is to
//! take along: its service, so that nobody counts references to that with each call. A dispatch inside a dispatch of
//! the same procedure finds no cell, and makes another; a future that is not done at its first poll keeps its cell.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place for a future, pinned while it is there, and for its service before and after that.
pub(crate) struct Place<T, Fut> {
    future: Option<Fut>,
    service: Option<T>,
}

pub(crate) type Cell<T, Fut> = Pin<Box<Place<T, Fut>>>;

impl<T, Fut> Place<T, Fut> {
    const EMPTY: Self = Self {
        future: None,
        service: None,
    };

    /// Only the future is pinned.
    #[inline]
    fn parts(self: Pin<&mut Self>) -> (Pin<&mut Option<Fut>>, &mut Option<T>) {
        // SAFETY: nothing is moved out of the reference; the future is handed on pinned, and the service never is.
        let place = unsafe { self.get_unchecked_mut() };
        // SAFETY: it lies in what was pinned, and only `Pin::set` replaces it.
        let future = unsafe { Pin::new_unchecked(&mut place.future) };
        (future, &mut place.service)
    }

    #[inline]
    pub(crate) fn future(self: Pin<&mut Self>) -> Pin<&mut Option<Fut>> {
        self.parts().0
    }

    #[inline]
    pub(crate) fn service(self: Pin<&mut Self>) -> &mut Option<T> {
        self.parts().1
    }
}

/// A cell between two dispatches.
trait Kept: Any {
    fn let_go(&mut self);
}

impl<T: 'static, Fut: 'static> Kept for Place<T, Fut> {
    fn let_go(&mut self) {
        self.service = None;
    }
}

thread_local! {
    /// By the numbers of `Cells`.
    static CELLS: RefCell<Vec<Option<Box<dyn Kept>>>> = const { RefCell::new(Vec::new()) };
}

/// The cells of one procedure, in all threads.
pub(crate) struct Cells<T, Fut> {
    /// No other `Cells` has this number, so what lies there is of the one type `Place<T, Fut>`.
    number: usize,
    _of: PhantomData<fn() -> (T, Fut)>,
}

impl<T: 'static, Fut: 'static> Cells<T, Fut> {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < usize::MAX, "more procedures than numbers");
        Self {
            number,
            _of: PhantomData,
        }
    }

    /// A cell without a future.
    #[inline]
    pub(crate) fn take(&self) -> Cell<T, Fut> {
        let kept = CELLS.with_borrow_mut(|cells| cells.get_mut(self.number).and_then(Option::take));
        let Some(kept) = kept else {
            return Box::pin(Place::EMPTY);
        };
        debug_assert!((&*kept as &dyn Any).is::<Place<T, Fut>>());
        // SAFETY: only `put` below fills this place, and for this number only with boxes of `Place<T, Fut>`. (The
        // safe way to say so compares two type ids, which costs as much as the rest of a dispatch.)
        let cell = unsafe { Box::from_raw(Box::into_raw(kept).cast::<Place<T, Fut>>()) };
        Box::into_pin(cell)
    }

    /// Keeps a cell for the next call. A future in it is dropped.
    #[inline]
    pub(crate) fn put(&self, mut cell: Cell<T, Fut>) {
        cell.as_mut().future().set(None);
        // SAFETY: there is no future any more that would have to stay where it is.
        let cell: Box<dyn Kept> = unsafe { Pin::into_inner_unchecked(cell) };
        let put = |cells: &RefCell<List>| put(&mut cells.borrow_mut(), self.number, cell);
        let surplus = CELLS.with(put);
        drop(surplus); // no longer borrowed: its service is a user's, and may do anything
    }
}

type List = Vec<Option<Box<dyn Kept>>>;

/// Puts a cell into its place, and returns the one that was there.
#[inline]
fn put(cells: &mut List, number: usize, cell: Box<dyn Kept>) -> Option<Box<dyn Kept>> {
    #[cold]
    fn widen(cells: &mut List, number: usize) {
        cells.resize_with(number + 1, || None);
    }
    if cells.len() <= number {
        widen(cells, number);
    }
    cells[number].replace(cell)
}

/// Lets go of all services, for a thread that rests or works for nobody any more.
pub(crate) fn let_go() {
    let take =
        |cells: &RefCell<List>, number: usize| Some(cells.borrow_mut().get_mut(number)?.take());
    let mut number = 0;
    // One at a time, and no longer borrowed. (There are none at the end of a thread.)
    while let Ok(Some(cell)) = CELLS.try_with(|cells| take(cells, number)) {
        if let Some(mut cell) = cell {
            cell.let_go();
            drop(CELLS.with_borrow_mut(|cells| put(cells, number, cell)));
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    type Tested = Cells<Arc<()>, std::future::Ready<u8>>;

    #[test]
    fn a_cell_is_used_again_and_a_second_one_made_meanwhile() {
        let (cells, others) = (Tested::new(), Cells::<(), String>::new());
        let is_empty = |cell: &Cell<_, _>| cell.future.is_none();
        let mut cell = cells.take();
        cell.as_mut().future().set(Some(std::future::ready(1)));
        let place = &raw const *cell;
        let second = cells.take();
        assert!(is_empty(&second));
        let mut other = others.take();
        let future = "not a future, but never mind".into();
        other.as_mut().future().set(Some(future));
        others.put(other);
        cells.put(cell);
        let again = cells.take();
        assert!(std::ptr::eq(&raw const *again, place) && is_empty(&again));
        cells.put(again);
        cells.put(second);
        assert!(is_empty(&cells.take()) && others.take().future.is_none());
    }

    #[test]
    fn a_service_stays_in_its_cell_until_the_thread_lets_go() {
        let (cells, service) = (Tested::new(), Arc::new(()));
        let mut cell = cells.take();
        *cell.as_mut().service() = Some(Arc::clone(&service));
        cells.put(cell);
        let mut cell = cells.take();
        assert!(cell.as_mut().service().is_some());
        cells.put(cell);
        assert_eq!(Arc::strong_count(&service), 2);
        let_go();
        assert_eq!(Arc::strong_count(&service), 1);
        assert!(cells.take().as_mut().service().is_none());
    }
}
