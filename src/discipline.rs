//! The order of a runtime's tasks, as its builder chooses it (§3.3).
//!
//! The order is the executor's business (`urpc-executor`). Here is only what makes a fresh discipline for
//! each runtime that is built: two runtimes must never share one, because their tasks are not each other's.

use std::fmt;
use std::sync::Arc;

use urpc_executor::Discipline;

/// Makes the discipline of a runtime.
#[derive(Clone)]
pub(crate) struct MakeDiscipline(Arc<dyn Fn() -> Arc<dyn Discipline> + Send + Sync>);

impl MakeDiscipline {
    pub(crate) fn new<D: Discipline>(make: impl Fn() -> D + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Arc::new(make())))
    }

    pub(crate) fn make(&self) -> Arc<dyn Discipline> {
        (self.0)()
    }
}

impl fmt::Debug for MakeDiscipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chosen by the application")
    }
}
