//! The shutdown signal, as a connection waits for it between two requests. The connection registers once and stays
//! registered: that takes a lock, and most waits are short.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pingora_core::server::ShutdownWatch;
use tokio::task::unconstrained;

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Stopped {
    watch: ShutdownWatch,
    /// The task that is woken by the signal.
    registered: Option<(Waker, Signal)>,
}

impl Stopped {
    pub(crate) fn new(watch: ShutdownWatch) -> Self {
        Self { watch, registered: None }
    }

    /// Ready once the gateway stops; until then the task is woken when it does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if *self.watch.borrow() {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|(waker, _)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let mut watch = self.watch.clone();
        // a task without budget would only be scheduled again, and not be registered
        let mut signal = Box::pin(unconstrained(async move { drop(watch.wait_for(|stopped| *stopped).await) }));
        let polled = signal.as_mut().poll(cx);
        self.registered = Some((cx.waker().clone(), signal));
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::watch;
    use tokio::task::coop;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_woken_in_the_task_that_polled_last() {
        let (stop, watch) = watch::channel(false);
        let mut stopped = Stopped::new(watch);
        for _ in 0..2 {
            stopped = tokio::spawn(async {
                for _ in 0..2 {
                    assert!(poll_fn(|cx| Poll::Ready(stopped.poll(cx))).await.is_pending());
                }
                stopped
            })
            .await
            .unwrap();
        }
        let waits = tokio::spawn(async move { poll_fn(|cx| stopped.poll(cx)).await });
        tokio::task::yield_now().await;
        stop.send(true).unwrap();
        waits.await.unwrap();
    }

    /// A large response may have used up the task's budget.
    #[tokio::test]
    async fn a_task_without_budget_is_woken_too() {
        let (stop, watch) = watch::channel(false);
        let mut stopped = Stopped::new(watch);
        let (asked, has_asked) = tokio::sync::oneshot::channel::<()>();
        let mut asked = Some(asked);
        let waits = tokio::spawn(poll_fn(move |cx| {
            while asked.is_some() && coop::has_budget_remaining() {
                let _ = std::pin::pin!(coop::consume_budget()).poll(cx);
            }
            asked = None;
            stopped.poll(cx)
        }));
        let _ = has_asked.await;
        // it was scheduled again, and has run
        tokio::task::yield_now().await;
        stop.send(true).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), waits).await.expect("woken").unwrap();
    }
}
