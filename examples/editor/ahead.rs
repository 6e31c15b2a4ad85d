//! Work done ahead: tasks that run at once, their results in order.

use std::collections::VecDeque;
use std::future::Future;

use urpc::{JoinError, JoinHandle};

/// Runs the futures of `work` as tasks, at most `limit` of them at a time.
///
/// Dropping it aborts the tasks that run, and so cancels their calls.
pub(crate) struct Ahead<W, T: Send + 'static> {
    work: W,
    limit: usize,
    running: VecDeque<JoinHandle<T>>,
}

impl<W, F> Ahead<W, F::Output>
where
    W: Iterator<Item = F>,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    pub(crate) fn new(limit: u32, work: W) -> Self {
        Self {
            work,
            limit: limit as usize,
            running: VecDeque::new(),
        }
    }

    /// The next result, in the order of `work`. `None` after the last.
    ///
    /// # Cancellation
    /// Nothing is lost: asking again yields the same result.
    pub(crate) async fn next(&mut self) -> Option<Result<F::Output, JoinError>> {
        while self.running.len() < self.limit {
            let Some(future) = self.work.next() else {
                break;
            };
            self.running.push_back(urpc::spawn(future));
        }
        let result = self.running.front_mut()?.await;
        self.running.pop_front();
        Some(result)
    }
}

impl<W, T: Send + 'static> Drop for Ahead<W, T> {
    fn drop(&mut self) {
        for task in &self.running {
            task.abort();
        }
    }
}
