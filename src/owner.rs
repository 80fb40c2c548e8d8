//! The owner: a thread that owns a blocking resource and runs jobs on it in the order they were handed in.
//!
//! Owns: the resource, from its start to its end.
//! Does not own: what a job means.
//! Invariants: one job at a time, in order; the queue is bounded, so callers wait when it is full; each job's answer is
//! sent before the housekeeping that follows it.
//! On failure: a job that panics ends the thread and drops the resource, whose state nobody can vouch for; it and every
//! later call get [`Gone::Panicked`].

use std::any::Any;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::{mpsc, oneshot};

type Job<T> = Box<dyn FnOnce(&mut Option<T>) -> ControlFlow<()> + Send>;

/// Why a job got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The resource was closed before.
    #[error("it is closed")]
    Closed,
    /// A job panicked, this one or one before it.
    #[error("its thread panicked: {0}")]
    Panicked(String),
}

/// Handle of the thread. Cheap to clone; when the last clone is gone the thread finishes its queue and ends.
pub struct Owner<T> {
    jobs: mpsc::Sender<Job<T>>,
    panic: Arc<OnceLock<String>>,
}

impl<T> Clone for Owner<T> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), panic: Arc::clone(&self.panic) }
    }
}

impl<T: Send + 'static> Owner<T> {
    /// Starts the thread `name`, which takes `resource` and at most `queue` waiting jobs. After each answer it runs
    /// `housekeeping`: work that nobody waits for.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(name: &str, resource: T, queue: usize, housekeeping: fn(&mut T)) -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job<T>>(queue);
        let panic = Arc::new(OnceLock::new());
        let noted = Arc::clone(&panic);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut resource = Some(resource);
            while let Some(job) = waiting.blocking_recv() {
                if job(&mut resource).is_break() {
                    return;
                }
                let kept = catch_unwind(AssertUnwindSafe(|| resource.as_mut().map(housekeeping)));
                if let Err(payload) = kept {
                    let _ = noted.set(text_of(&*payload));
                    return;
                }
            }
        })?;
        Ok(Self { jobs, panic })
    }

    /// Runs `job` on the resource after the jobs before it, and gives its answer.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn call<R: Send + 'static>(&self, job: impl FnOnce(&mut T) -> R + Send + 'static) -> Result<R, Gone> {
        self.hand_in(move |slot| slot.as_mut().map(job), ControlFlow::Continue(())).await
    }

    /// Runs `end`, which takes the resource, after the jobs before it, and ends the thread.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn close<R: Send + 'static>(&self, end: impl FnOnce(T) -> R + Send + 'static) -> Result<R, Gone> {
        self.hand_in(move |slot| slot.take().map(end), ControlFlow::Break(())).await
    }

    async fn hand_in<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<T>) -> Option<R> + Send + 'static,
        then: ControlFlow<()>,
    ) -> Result<R, Gone> {
        let (reply, answer) = oneshot::channel();
        let panic = Arc::clone(&self.panic);
        let job: Job<T> = Box::new(move |slot| match catch_unwind(AssertUnwindSafe(|| work(slot))) {
            Ok(answer) => {
                // Nobody may be waiting any more; the job was done all the same.
                let _ = reply.send(answer);
                then
            }
            Err(payload) => {
                let _ = panic.set(text_of(&*payload));
                ControlFlow::Break(())
            }
        });
        self.jobs.send(job).await.map_err(|_| self.gone())?;
        answer.await.ok().flatten().ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Gone {
        self.panic.get().map_or(Gone::Closed, |message| Gone::Panicked(message.clone()))
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(housekeeping: fn(&mut Vec<u32>)) -> Owner<Vec<u32>> {
        Owner::start("test", Vec::new(), 4, housekeeping).unwrap()
    }

    #[tokio::test]
    async fn jobs_run_in_order_and_close_takes_the_resource() {
        let owner = start(|_| {});
        for number in 0..100 {
            assert_eq!(owner.call(move |list| (list.push(number), list.len()).1).await, Ok(number as usize + 1));
        }
        assert_eq!(owner.close(|list| list).await, Ok((0..100).collect::<Vec<_>>()));
        assert_eq!(owner.call(|list| list.len()).await, Err(Gone::Closed));
    }

    #[tokio::test]
    async fn a_panic_reaches_its_caller_and_every_later_one() {
        let owner = start(|_| {});
        let panicked = Err(Gone::Panicked("no list is that long".to_owned()));
        assert_eq!(owner.call(|_| -> u32 { panic!("no list is that long") }).await, panicked);
        assert_eq!(owner.call(|_| 1).await, panicked);
        assert_eq!(owner.close(|_| 1).await, panicked);
    }

    #[tokio::test]
    async fn housekeeping_follows_each_job_and_its_panic_is_told_too() {
        let owner = start(|list| match list.len() {
            3 => panic!("full"),
            _ => list.push(7),
        });
        assert_eq!(owner.call(|list| list.len()).await, Ok(0));
        assert_eq!(owner.call(|list| list.len()).await, Ok(1));
        assert_eq!(owner.call(|list| list.len()).await, Ok(2));
        assert_eq!(owner.call(|list| list.len()).await, Ok(3));
        assert_eq!(owner.call(|list| list.len()).await, Err(Gone::Panicked("full".to_owned())));
    }

    #[tokio::test]
    async fn a_job_is_done_though_its_caller_went_away() {
        let owner = start(|_| {});
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = owner.clone();
        let blocked = tokio::spawn(async move { first.call(move |_| wait.recv()).await });
        tokio::task::yield_now().await;
        let second = owner.clone();
        let dropped = tokio::spawn(async move { second.call(|list| list.push(1)).await });
        tokio::task::yield_now().await;
        dropped.abort();
        go.send(()).unwrap();
        blocked.await.unwrap().unwrap().unwrap();
        assert_eq!(owner.call(|list| list.clone()).await, Ok(vec![1]));
    }
}
