//! The handle of a task: waits for it, aborts it, and says how it ended.
//!
//! A task ends once, and its handle yields that end once. A handle never stops a task unless told to.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_task::FallibleTask;

use crate::task::{Output, Tag};

/// Waits for a task and yields what it made.
///
/// # Errors
/// A [`JoinError`] if the task panicked, was [aborted](Self::abort), or was dropped by the shutdown
/// of its executor.
///
/// # Cancellation
/// Dropping the handle detaches the task: it goes on, and its output is dropped.
#[must_use = "dropping a JoinHandle detaches its task"]
pub struct JoinHandle<T> {
    /// The lock is for `abort` and `is_finished`, through a shared reference; a poll needs none.
    state: Mutex<State<T>>,
}

enum State<T> {
    Running(FallibleTask<Output<T>, Tag>),
    /// Aborted, and perhaps still in the middle of a poll: waits until the future is dropped.
    Aborting {
        end: Pin<Box<dyn Future<Output = Option<Output<T>>> + Send>>,
        waiter: Option<Waker>,
    },
    Done(Result<T, JoinError>),
    Taken,
}

impl<T> State<T> {
    /// Moves on as far as possible. True if the result is there.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let polled = match self {
            State::Running(task) => catch_unwind(AssertUnwindSafe(|| Pin::new(task).poll(cx))),
            State::Aborting { end, .. } => catch_unwind(AssertUnwindSafe(|| end.as_mut().poll(cx))),
            State::Done(_) | State::Taken => return true,
        };
        let result = match polled {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => output
                .and_then(Output::into_inner)
                .ok_or_else(JoinError::aborted),
            Err(payload) => Err(JoinError::panicked(payload)),
        };
        *self = State::Done(result);
        true
    }
}

impl<T> JoinHandle<T> {
    /// The handle of a task.
    pub(crate) fn of(task: FallibleTask<Output<T>, Tag>) -> JoinHandle<T> {
        JoinHandle::new(State::Running(task))
    }

    fn new(state: State<T>) -> JoinHandle<T> {
        JoinHandle {
            state: Mutex::new(state),
        }
    }

    /// The handle of a task that was never to be.
    pub(crate) fn never() -> JoinHandle<T> {
        JoinHandle::new(State::Done(Err(JoinError::aborted())))
    }

    /// The handle of a task that is over: with its value, or with what it panicked with.
    pub(crate) fn ended(end: Result<T, Box<dyn Any + Send>>) -> JoinHandle<T> {
        JoinHandle::new(State::Done(end.map_err(JoinError::panicked)))
    }

    /// True if the task is over: it is ready, has panicked, or was aborted and is dropped.
    pub fn is_finished(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Running(task) => task.is_finished(),
            State::Aborting { waiter, .. } => {
                // A look at this future is a poll, and must leave the real waiter's waker there.
                let waker = waiter.clone().unwrap_or_else(|| Waker::noop().clone());
                state.advance(&mut Context::from_waker(&waker))
            }
            State::Done(_) | State::Taken => true,
        }
    }
}

impl<T: Send + 'static> JoinHandle<T> {
    /// Has the task dropped: at once if it is not being polled, else when that poll ends. Awaiting
    /// the handle then waits for that, and yields an aborted [`JoinError`]. If the task was ready
    /// before, nothing happens, and the handle still yields its value.
    pub fn abort(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(_) = &*state
            && let State::Running(task) = std::mem::replace(&mut *state, State::Taken)
        {
            *state = State::Aborting {
                end: Box::pin(task.cancel()),
                waiter: None,
            };
            // The first poll is what marks the task as cancelled.
            state.advance(&mut Context::from_waker(Waker::noop()));
        }
    }
}

// Nothing in it is pinned: the task is on the heap.
impl<T> Unpin for JoinHandle<T> {}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !state.advance(cx) {
            if let State::Aborting { waiter, .. } = state {
                *waiter = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        match std::mem::replace(state, State::Taken) {
            State::Done(result) => Poll::Ready(result),
            _ => panic!("a JoinHandle was polled after it had yielded its result"),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(task) = std::mem::replace(state, State::Taken) {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

/// Why a task has no output.
pub struct JoinError {
    /// `None` if it was aborted. The lock only makes the error `Sync`.
    panic: Option<Mutex<Box<dyn Any + Send>>>,
    message: Option<String>,
}

impl JoinError {
    fn aborted() -> JoinError {
        JoinError {
            panic: None,
            message: None,
        }
    }

    fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
        let message = match payload.downcast_ref::<&str>() {
            Some(text) => Some((*text).to_owned()),
            None => payload.downcast_ref::<String>().cloned(),
        };
        JoinError {
            panic: Some(Mutex::new(payload)),
            message,
        }
    }

    /// True if the task panicked.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// True if the task was aborted, or dropped by the shutdown of its executor.
    pub fn is_aborted(&self) -> bool {
        self.panic.is_none()
    }

    /// What the task panicked with, for `std::panic::resume_unwind`.
    ///
    /// # Panics
    /// If the task was aborted: ask [`is_panic`](Self::is_panic) first.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.panic {
            Some(payload) => payload.into_inner().unwrap_or_else(PoisonError::into_inner),
            None => panic!("into_panic() of a JoinError without a panic: the task was aborted"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.panic, &self.message) {
            (None, _) => f.write_str("the task was aborted"),
            (Some(_), Some(message)) => write!(f, "the task panicked: {message}"),
            (Some(_), None) => f.write_str("the task panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
