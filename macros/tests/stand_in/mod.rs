//! Plays the part of `urpc`: a channel that is a table of procedures in the same process.

use std::any::Any;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The result of binding.
pub type Result<T> = std::result::Result<T, String>;

/// As `urpc::Service`.
pub trait Service {
    /// What the service answers.
    fn procedures(self) -> Vec<urpc::__private::Procedure>;
}

/// Stands for a peer: the procedures that it has.
#[derive(Clone, Debug)]
pub struct Peer(pub(crate) Arc<Vec<urpc::__private::Procedure>>);

impl Peer {
    pub(crate) fn new(service: impl Service) -> Self {
        Self(Arc::new(service.procedures()))
    }
}

type Value = Box<dyn Any + Send>;
type Answer = Pin<Box<dyn Future<Output = Value> + Send>>;

/// Stands for a call.
#[must_use = "a call is lazy"]
pub struct Call<R>(
    std::result::Result<Answer, String>,
    std::marker::PhantomData<fn() -> R>,
);

/// As `urpc::CallError`.
pub type CallError = String;

impl<R: 'static> Future for Call<R> {
    type Output = std::result::Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Err(error) => Poll::Ready(Err(error.clone())),
            Ok(answer) => answer.as_mut().poll(context).map(|value| {
                Ok(*value
                    .downcast()
                    .expect("the result has the type in the trait"))
            }),
        }
    }
}

#[doc(hidden)]
pub mod __private {
    use super::{Answer, Call, Peer, Result, Value};

    pub struct Procedure {
        pub(crate) name: &'static str,
        pub(crate) signature: &'static str,
        carry_out: Box<dyn Fn(Value) -> Answer + Send + Sync>,
    }

    impl std::fmt::Debug for Procedure {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.signature)
        }
    }

    impl Procedure {
        pub fn of<T, A, R, F>(
            name: &'static str,
            signature: &'static str,
            service: T,
            call: impl Fn(T, A) -> F + Send + Sync + 'static,
        ) -> Self
        where
            T: Clone + Send + Sync + 'static,
            A: Send + 'static,
            R: Send + 'static,
            F: Future<Output = (T, R)> + Send + 'static,
        {
            let carry_out = move |arguments: Value| -> Answer {
                let arguments = arguments
                    .downcast::<A>()
                    .expect("the trait's argument types");
                let future = call(service.clone(), *arguments);
                Box::pin(async move { Box::new(future.await.1) as Value })
            };
            Self {
                name,
                signature,
                carry_out: Box::new(carry_out),
            }
        }
    }

    type Table = &'static [(&'static str, &'static str)];

    #[derive(Clone, Debug)]
    pub struct Stub(Peer, Table);

    impl Stub {
        pub async fn connect(name: &str, _: Table) -> Result<Self> {
            Err(format!("nobody listens at {name}"))
        }

        pub fn on(peer: &Peer, table: Table) -> Self {
            Self(peer.clone(), table)
        }

        pub fn peer(&self) -> &Peer {
            &self.0
        }

        pub fn check(&self) -> Result<()> {
            let has = |(name, signature)| {
                self.0
                    .0
                    .iter()
                    .any(|p| p.name == name && p.signature == signature)
            };
            match self.1.iter().find(|&&procedure| !has(procedure)) {
                Some((_, signature)) => Err(format!("no procedure {signature}")),
                None => Ok(()),
            }
        }

        pub fn call<A: Send + 'static, R: 'static>(&self, place: usize, arguments: A) -> Call<R> {
            let (name, signature) = self.1[place];
            let procedure = self
                .0
                .0
                .iter()
                .find(|p| p.name == name && p.signature == signature);
            let answer = procedure.map(|procedure| (procedure.carry_out)(Box::new(arguments)));
            Call(
                answer.ok_or_else(|| format!("no procedure {signature}")),
                std::marker::PhantomData,
            )
        }
    }

    /// Runs a future that never waits.
    pub fn run<F: Future>(processors: Option<usize>, future: F) -> F::Output {
        super::PROCESSORS.set(processors);
        super::now(future)
    }
}

thread_local! {
    /// What the last [`__private::run`] of this thread was asked for.
    pub(crate) static PROCESSORS: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// The output of a future that never waits.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}
