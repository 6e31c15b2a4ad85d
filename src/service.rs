//! What a process offers: procedures by name, and how a request becomes a reply.
//!
//! A request is dispatched poll-first: its handler is polled at once, in a cell that is used again, and
//! only a handler that is not done then becomes a task. (The first poll is given a waker that does
//! nothing, and a task polls again at once with its own: a future owes its wake-up to the waker of its
//! *latest* poll only.) So a handler that does not wait costs no allocation and no scheduling.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::Body;

use crate::caller;
use crate::cell::{Cell, Cells};
use crate::limits::PROCEDURES;
use crate::serving::Request;
use crate::wire::{self, Status, Undecodable};

/// A set of procedures: implemented by the `…Server` types that [`service`](macro@crate::service) makes.
pub trait Service {
    /// The procedures, each with its name and signature.
    fn procedures(self) -> Vec<Procedure>;
}

/// One procedure that can be called from another process. Made by [`service`](macro@crate::service) and
/// by `method` of the builders.
pub struct Procedure {
    name: String,
    /// Empty for a free-form procedure, whose types only its decoder knows.
    signature: String,
    handler: Box<dyn Handler>,
}

impl std::fmt::Debug for Procedure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Procedure").field(&self.name).finish()
    }
}

impl Procedure {
    /// A procedure of `service`, which goes with each call and comes back with its result.
    pub fn of<T, A, R, F, Fut>(name: &str, signature: &str, service: T, call: F) -> Self
    where
        T: Clone + Send + Sync + 'static,
        A: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(T, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = (T, R)> + Send + 'static,
    {
        Self {
            name: name.into(),
            signature: signature.into(),
            handler: Box::new(Typed {
                service,
                call,
                cells: Cells::new(),
                _args: std::marker::PhantomData,
            }),
        }
    }

    /// A procedure that accepts whatever decodes as `A`.
    pub fn free<A, F, Fut>(name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Serialize + 'static> + Send + 'static,
    {
        Self::of(name, "", (), move |(), arguments| {
            let handled = handler(arguments);
            async move { ((), handled.await) }
        })
    }
}

/// All that one process offers on a channel. Fixed once it is bound.
#[derive(Debug, Default)]
pub(crate) struct Services {
    procedures: Vec<Procedure>,
    by_name: HashMap<String, usize>,
}

impl Services {
    /// Adds a procedure.
    ///
    /// # Panics
    /// If there is one of this name already: a programmer's mistake.
    #[track_caller]
    pub(crate) fn add(&mut self, procedure: Procedure) {
        let index = self.procedures.len();
        assert!(
            index < PROCEDURES,
            "more than {PROCEDURES} procedures on one channel"
        );
        let before = self.by_name.insert(procedure.name.clone(), index);
        assert!(
            before.is_none(),
            "two procedures are named `{}`: a service can be given another name, `#[urpc::service(name = \"…\")]`",
            procedure.name
        );
        self.procedures.push(procedure);
    }

    /// What the peer is told at binding: name and signature, in the order of the procedure numbers.
    pub(crate) fn offer(&self) -> Vec<(String, String)> {
        let all = self.procedures.iter();
        all.map(|p| (p.name.clone(), p.signature.clone())).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.procedures.is_empty()
    }

    /// Runs `request`, or turns it into a task.
    #[inline(always)]
    pub(crate) fn dispatch(&self, request: Request) {
        match self.procedures.get(usize::from(request.procedure())) {
            Some(procedure) => procedure.handler.dispatch(request),
            None => {
                let offers = self.procedures.len();
                let text = format!("there are only {offers} procedures here");
                request.refuse(Status::UnknownProcedure, &text);
            }
        }
    }
}

trait Handler: Send + Sync {
    fn dispatch(&self, request: Request);
}

struct Typed<T, A, F, Fut> {
    service: T,
    call: F,
    cells: Cells<T, Fut>,
    _args: std::marker::PhantomData<fn(A)>,
}

impl<T, A, R, F, Fut> Handler for Typed<T, A, F, Fut>
where
    T: Clone + Send + Sync + 'static,
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(T, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = (T, R)> + Send + 'static,
{
    fn dispatch(&self, mut request: Request) {
        let mut cell = self.cells.take();
        let (binding, deadline) = (request.binding(), request.deadline());
        // Decoding, the handler, its destructor, encoding: all of it is the user's code.
        let run = || -> Result<(), Box<Failure>> {
            let arguments = request.decode::<A>().map_err(Failure::Arguments)?;
            let service = cell.as_mut().service().take();
            let service = service.unwrap_or_else(|| self.service.clone());
            let mut future = cell.as_mut().future();
            future.set(Some((self.call)(service, arguments)));
            let polled = future.as_mut().as_pin_mut().expect("just set");
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready((service, value)) = polled.poll(&mut context) else {
                return Ok(());
            };
            future.set(None);
            *cell.as_mut().service() = Some(service);
            request.encode(&value).map_err(Failure::Result)?;
            Ok(())
        };
        let run = || {
            let caught = catch_unwind(AssertUnwindSafe(run));
            caught.unwrap_or_else(|panic| Err(Box::new(Failure::Panic(panic))))
        };
        match caller::enter(binding, deadline, run) {
            Ok(()) if cell.as_mut().future().is_none() => {
                request.reply();
                self.cells.put(cell);
            }
            // Not done: it is still in its cell.
            Ok(()) => request.go_on(Task(cell)),
            Err(failure) => fail(request, *failure, cell),
        }
    }
}

/// How a first poll fails. Boxed, it is a single word, which crosses the two frames between in a register: what is
/// put together there in memory, and moved at once, holds up the reply.
enum Failure {
    Arguments(Undecodable),
    Result(String),
    Panic(Box<dyn Any + Send>),
}

#[cold]
fn fail<T, Fut>(request: Request, why: Failure, mut cell: Cell<T, Fut>) {
    let (status, text) = match why {
        Failure::Arguments(why) => undecodable(why),
        Failure::Result(why) => unencodable(&why),
        Failure::Panic(panic) => {
            // What is left of the future may panic once more as it goes.
            let _ = catch_unwind(AssertUnwindSafe(|| cell.as_mut().future().set(None)));
            (Status::Panicked, panic_text(&*panic))
        }
    };
    request.fail(status, &text);
}

#[cold]
fn undecodable(why: Undecodable) -> (Status, String) {
    match why {
        Undecodable::Malformed(why) => (
            Status::Undecodable,
            format!("its arguments could not be decoded: {why}"),
        ),
        Undecodable::Surplus(bytes) => (
            Status::Surplus,
            format!(
                "{bytes} bytes were left over after its arguments: the procedure takes other types"
            ),
        ),
    }
}

#[cold]
fn unencodable(why: &str) -> (Status, String) {
    let text = format!("its result could not be encoded: {why}");
    (Status::Unencodable, text)
}

/// A handler that was not done at its first poll. Ends in a body, or in a status and its text.
struct Task<T, Fut>(Cell<T, Fut>);

impl<T, R: Serialize, Fut: Future<Output = (T, R)>> Future for Task<T, Fut> {
    type Output = Result<Body, (Status, String)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut().future().as_pin_mut();
        let future = future.expect("polled after its end");
        let mut body = Body::EMPTY;
        let run = || {
            let polled = future.poll(cx);
            polled.map(|(_, value)| wire::encode(&value, &mut body))
        };
        let (status, text) = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => return Poll::Ready(Ok(body)),
            Ok(Poll::Ready(Err(why))) => unencodable(&why),
            Err(panic) => (Status::Panicked, panic_text(&*panic)),
        };
        Poll::Ready(Err((status, text)))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    format!("its handler panicked: {said}")
}

/// A builder's list of what is offered.
pub(crate) type Offer = Arc<Services>;
