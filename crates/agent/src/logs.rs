//! Log lines for managers that ask for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::{self, Stream};
use skep_model::{TaskId, Timestamp};
use skep_rpc::{DispatcherClient, proto};
use skep_runtime::{LogLine, LogOptions, LogStream, Runtime};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use crate::containers::container_id;

/// Lines in one message at the most: enough to make messages cheap, few enough that a tail shows at once.
const LINES: usize = 256;

/// Pushes logs of tasks to managers, one stream per subscription. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogPusher {
    runtime: Arc<dyn Runtime>,
    running: Arc<Mutex<HashMap<u64, AbortHandle>>>,
}

impl LogPusher {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, running: Arc::default() }
    }

    /// Begins to push what `request` asks for.
    pub(crate) fn push(&self, mut client: DispatcherClient, request: proto::LogRequest) {
        let subscription = request.subscription;
        let (runtime, running) = (self.runtime.clone(), self.running.clone());
        let task = tokio::spawn(async move {
            let lines = merged(runtime, &request).await;
            let chunks = lines.ready_chunks(LINES).map(move |lines| proto::LogChunk { subscription, lines });
            // An empty chunk first, so that the manager learns of the stream even when nothing is ever written; and it is how a
            // subscription without lines ends.
            let greeting = stream::once(async move { proto::LogChunk { subscription, lines: Vec::new() } });
            if let Err(status) = client.publish_logs(greeting.chain(chunks)).await {
                debug!(subscription, "the manager takes no more log lines: {}", status.message());
            }
            lock(&running).remove(&subscription);
        });
        lock(&self.running).insert(subscription, task.abort_handle());
    }

    /// The manager is no longer interested.
    pub(crate) fn cancel(&self, subscription: u64) {
        if let Some(task) = lock(&self.running).remove(&subscription) {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines of all tasks asked for, as they come.
async fn merged(
    runtime: Arc<dyn Runtime>,
    request: &proto::LogRequest,
) -> impl Stream<Item = proto::LogLine> + Send + use<> {
    let mut streams = Vec::new();
    for task in &request.task_ids {
        let Ok(id) = task.parse::<TaskId>() else { continue };
        match runtime.logs(&container_id(&id), options(request)).await {
            Ok(lines) => streams.push(ReceiverStream::new(lines).map(move |line| to_wire(&id, line)).boxed()),
            Err(e) => debug!(task = %id, "no log: {e}"),
        }
    }
    stream::select_all(streams)
}

fn options(request: &proto::LogRequest) -> LogOptions {
    LogOptions {
        tail: u64::try_from(request.tail).ok(),
        since: (request.since > 0).then(|| Timestamp::from_nanosecond(request.since.into()).ok()).flatten(),
        follow: request.follow,
        stdout: request.stdout,
        stderr: request.stderr,
    }
}

fn to_wire(task: &TaskId, line: LogLine) -> proto::LogLine {
    let stream = match line.stream {
        LogStream::Stdout => 1,
        LogStream::Stderr => 2,
    };
    let timestamp = i64::try_from(line.timestamp.as_nanosecond()).unwrap_or(i64::MAX);
    proto::LogLine { task_id: task.to_string(), stream, timestamp, line: line.line.into() }
}
