//! The task set: every long-running task has a name, a rank and an end that is noticed.
//!
//! A critical task that ends before it was told to stops the daemon in order; a side task is started again with backoff
//! and shows in status. Tasks of one stage are told to stop together, stages in the order of the design's life cycle.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::explain;

/// The order in which tasks are told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing new comes in.
    Sources,
    /// What came in is committed and acknowledged.
    Pump,
    /// The cut under way is finished.
    Sealer,
    /// The shipment under way is finished, up to its deadline.
    Uploader,
    /// Doors close.
    Api,
    /// SQL ends.
    Engine,
}

impl Stage {
    /// All of them, first to stop first, each with its deadline.
    pub const ORDER: [(Self, Duration); 6] = [
        (Self::Sources, Duration::from_secs(5)),
        (Self::Pump, Duration::from_secs(20)),
        (Self::Sealer, Duration::from_secs(20)),
        (Self::Uploader, Duration::from_secs(10)),
        (Self::Api, Duration::from_secs(5)),
        (Self::Engine, Duration::from_secs(5)),
    ];
}

/// A task ended that should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub task: &'static str,
    /// What it said.
    pub message: String,
}

struct Task {
    name: &'static str,
    stage: Stage,
    handle: JoinHandle<()>,
}

/// Where tasks are started and stopped. Cheap to clone.
#[derive(Clone)]
pub struct TaskSet {
    inner: Arc<Inner>,
}

struct Inner {
    tasks: Mutex<Vec<Task>>,
    stops: [CancellationToken; Stage::ORDER.len()],
    /// Cancelled at the first failure of a critical task.
    failed: CancellationToken,
    failure: Mutex<Option<Failure>>,
}

/// First and longest pause before a side task is started again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl TaskSet {
    /// An empty set.
    pub fn new() -> Self {
        let inner = Inner {
            tasks: Mutex::default(),
            stops: std::array::from_fn(|_| CancellationToken::new()),
            failed: CancellationToken::new(),
            failure: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Cancelled when tasks of `stage` are to stop.
    pub fn stop_of(&self, stage: Stage) -> CancellationToken {
        self.inner.stops.get(stage as usize).cloned().unwrap_or_default()
    }

    /// Starts a task whose unexpected end stops the daemon.
    pub fn critical<E: std::error::Error>(
        &self,
        name: &'static str,
        stage: Stage,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let set = self.clone();
        let stop = self.stop_of(stage);
        self.add(name, stage, async move {
            let outcome = tokio::spawn(async move { task.await.map_err(|error| explain(&error)) }).await;
            let message = match outcome {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => "it ended by itself".to_owned(),
                Ok(Err(message)) => message,
                Err(join) => format!("it panicked: {join}"),
            };
            set.fail(Failure { task: name, message });
        });
    }

    /// Starts a task that is started again, with a growing pause, whenever it ends before it is told to.
    pub fn side<F, E>(&self, name: &'static str, stage: Stage, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let stop = self.stop_of(stage);
        self.add(name, stage, async move {
            let mut pause = RESTART_PAUSE.0;
            loop {
                let begun = tokio::time::Instant::now();
                let outcome = tokio::spawn(start()).await;
                if stop.is_cancelled() {
                    return;
                }
                match outcome {
                    Ok(Ok(())) => tracing::warn!(task = name, "a task ended by itself and is started again"),
                    Ok(Err(error)) => tracing::warn!(task = name, error = explain(&error), "a task failed and is started again"),
                    Err(error) => tracing::error!(task = name, %error, "a task panicked and is started again"),
                }
                // A task that held for a minute starts afresh.
                pause = if begun.elapsed() > Duration::from_secs(60) { RESTART_PAUSE.0 } else { pause };
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RESTART_PAUSE.1),
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    fn add(&self, name: &'static str, stage: Stage, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task);
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(Task { name, stage, handle });
    }

    /// Reports a failure that must stop the daemon; the first one is kept.
    pub fn fail(&self, failure: Failure) {
        tracing::error!(task = failure.task, message = failure.message, "a critical task failed");
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.inner.failed.cancel();
    }

    /// Returns at the first failure of a critical task.
    pub async fn failed(&self) {
        self.inner.failed.cancelled().await;
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<Failure> {
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the tasks to stop, stage by stage, and waits for each up to its deadline.
    pub async fn stop(&self) {
        for (stage, deadline) in Stage::ORDER {
            self.stop_of(stage).cancel();
            self.join(stage, deadline).await;
        }
    }

    async fn join(&self, stage: Stage, deadline: Duration) {
        let tasks: Vec<Task> = {
            let mut all = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            all.extract_if(.., |task| task.stage == stage).collect()
        };
        let end = tokio::time::Instant::now() + deadline;
        for mut task in tasks {
            if tokio::time::timeout_at(end, &mut task.handle).await.is_err() {
                tracing::warn!(task = task.name, deadline_s = deadline.as_secs(), "a task did not stop in time and is cut short");
                task.handle.abort();
            }
        }
    }
}

impl Default for TaskSet {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct Gone;

    #[tokio::test]
    async fn a_critical_task_that_ends_by_itself_is_a_failure_and_the_first_one_is_kept() {
        let tasks = TaskSet::new();
        tasks.critical("pump", Stage::Pump, async { Err(Gone) });
        tasks.failed().await;
        tasks.critical("sealer", Stage::Sealer, async { Ok::<(), Gone>(()) });
        tasks.stop().await;
        assert_eq!(tasks.failure(), Some(Failure { task: "pump", message: "the disk is gone".to_owned() }));
    }

    #[tokio::test]
    async fn a_panic_of_a_critical_task_is_a_failure_too() {
        let tasks = TaskSet::new();
        let (reply, answer) = tokio::sync::oneshot::channel::<()>();
        drop(reply);
        tasks.critical("pump", Stage::Pump, async {
            answer.await.unwrap();
            Ok::<(), Gone>(())
        });
        tasks.failed().await;
        assert!(tasks.failure().unwrap().message.contains("panicked"));
    }

    #[tokio::test]
    async fn a_side_task_is_started_again_until_it_is_told_to_stop() {
        let tasks = TaskSet::new();
        let (starts, stop) = (Arc::new(AtomicU32::new(0)), tasks.stop_of(Stage::Uploader));
        let counted = Arc::clone(&starts);
        tasks.side("uploader", Stage::Uploader, move || {
            let (round, stop) = (counted.fetch_add(1, Ordering::SeqCst), stop.clone());
            async move {
                match round {
                    0 => return Err(Gone),
                    1 => panic!("of the second start"),
                    _ => stop.cancelled().await,
                }
                Ok(())
            }
        });
        while starts.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tasks.stop().await;
        assert_eq!((starts.load(Ordering::SeqCst), tasks.failure()), (3, None));
    }

    #[tokio::test]
    async fn stages_stop_in_their_order() {
        let tasks = TaskSet::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        for stage in [Stage::Engine, Stage::Sources, Stage::Pump] {
            let (order, stop) = (Arc::clone(&order), tasks.stop_of(stage));
            tasks.critical("one", stage, async move {
                stop.cancelled().await;
                order.lock().unwrap().push(stage);
                Ok::<(), Gone>(())
            });
        }
        tasks.stop().await;
        assert_eq!(*order.lock().unwrap(), [Stage::Sources, Stage::Pump, Stage::Engine]);
        assert_eq!(tasks.failure(), None);
    }
}
