//! Who calls: what a handler can learn about the call it serves.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use urpc_donate::Credentials;

use crate::binding::Binding;
use crate::peer::Peer;
use crate::wire::Nanos;

thread_local! {
    /// The channel that was served last on this thread. It stays when a call ends, so that serving one
    /// client's calls in a row touches no reference count; see [`forget`].
    static LAST: RefCell<Option<Arc<Binding>>> = const { RefCell::new(None) };
    /// The same, to be compared with.
    static LAST_AT: Cell<*const Binding> = const { Cell::new(std::ptr::null()) };
    /// The deadline of the call that is being served right now.
    static SERVING: Cell<Option<Nanos>> = const { Cell::new(None) };
}

/// The process whose call the current task serves.
#[derive(Clone, Debug)]
pub struct Caller {
    binding: Arc<Binding>,
    deadline: Nanos,
}

impl Caller {
    /// Process, user and group id of the caller, as the kernel vouched for them at binding (R4). Without a
    /// name, of whoever says the hello: see [`serve_fd`](crate::serve_fd).
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.binding.process.credentials()
    }

    /// The caller as a peer: to call it back, on the same channel, if it offers procedures.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::new(Arc::clone(&self.binding))
    }

    /// When the caller stops waiting, if it said so. Calls made by the handler inherit it.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.to_instant()
    }
}

/// The process whose call the current task serves; `None` outside of a handler.
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build().unwrap();
/// # rt.block_on(async {
/// assert!(urpc::caller().is_none(), "this is not a handler");
/// # });
/// ```
#[must_use]
pub fn caller() -> Option<Caller> {
    let deadline = SERVING.get()?;
    let binding = LAST.with_borrow(Option::clone)?;
    Some(Caller { binding, deadline })
}

/// The deadline that calls made now inherit.
pub(crate) fn inherited() -> Nanos {
    SERVING.get().unwrap_or(Nanos::NEVER)
}

/// Runs `f` as part of a call that came over `binding`.
#[inline]
pub(crate) fn enter<R>(binding: &Arc<Binding>, deadline: Nanos, f: impl FnOnce() -> R) -> R {
    let before = if LAST_AT.get() == Arc::as_ptr(binding) {
        None
    } else {
        Some(set_last(Some(Arc::clone(binding))))
    };
    let serving = SERVING.replace(Some(deadline));
    let result = f();
    SERVING.set(serving);
    if let Some(before) = before
        && serving.is_some()
    {
        // A dispatch inside another: its caller is the caller again.
        set_last(before);
    }
    result
}

#[cold]
fn set_last(binding: Option<Arc<Binding>>) -> Option<Arc<Binding>> {
    LAST_AT.set(binding.as_ref().map_or(std::ptr::null(), Arc::as_ptr));
    LAST.replace(binding)
}

/// Lets go of the channel served last, so that a closed one can be unmapped.
pub(crate) fn forget() {
    if SERVING.get().is_none() {
        set_last(None);
    }
}

/// `future`, polled as no part of any call, wherever that is.
pub(crate) async fn outside<F: Future>(future: F) -> F::Output {
    /// A poll may panic.
    struct Back(Option<Nanos>);
    impl Drop for Back {
        fn drop(&mut self) {
            SERVING.set(self.0);
        }
    }
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _back = Back(SERVING.take());
        future.as_mut().poll(cx)
    })
    .await
}

/// A handler's future, polled as part of its call.
pub(crate) struct Within<F> {
    pub(crate) binding: Arc<Binding>,
    pub(crate) deadline: Nanos,
    pub(crate) future: F,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        enter(&this.binding, this.deadline, || {
            Pin::new(&mut this.future).poll(cx)
        })
    }
}
