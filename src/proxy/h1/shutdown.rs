//! The word that the gateway stops, as a connection waits for it between two requests. It is asked for once and stays
//! asked for: that takes a lock, and most waits are over at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pingora_core::server::ShutdownWatch;
use tokio::task::unconstrained;

type Word = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Stopped {
    watch: ShutdownWatch,
    /// Whom the word wakes.
    asked: Option<(Waker, Word)>,
}

impl Stopped {
    pub(crate) fn new(watch: ShutdownWatch) -> Self {
        Self { watch, asked: None }
    }

    /// Ready once the gateway stops; until then the task is woken when it does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if *self.watch.borrow() {
            return Poll::Ready(());
        }
        if self.asked.as_ref().is_some_and(|(waker, _)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let mut watch = self.watch.clone();
        // a task that has used up its budget would be told to come again, and not be registered
        let mut word = Box::pin(unconstrained(async move { drop(watch.wait_for(|stopped| *stopped).await) }));
        let polled = word.as_mut().poll(cx);
        self.asked = Some((cx.waker().clone(), word));
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
    async fn whoever_asked_is_woken_in_whatever_task_it_asked_last() {
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

    /// A large response may have used up what a task may do in a row.
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
        // it has been told to come again, and has
        tokio::task::yield_now().await;
        stop.send(true).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), waits).await.expect("woken").unwrap();
    }
}
