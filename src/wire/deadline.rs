//! The one timer of a connection. Every step of every request has a deadline, which hardly ever passes: the timer is moved only
//! when it would fire too late, or has fired too early, so that most steps never touch it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for a deadline that may differ at every poll.
#[derive(Debug, Default)]
pub(crate) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready when `by` has passed.
    pub(crate) fn poll(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= by {
                return Poll::Ready(());
            }
            timer.as_mut().reset(by);
        }
        Poll::Pending
    }

    /// The result of `work`; `None` if it takes longer than `time`. Work that is ready immediately does not read the clock.
    pub(crate) async fn within<T>(&mut self, time: Duration, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        self.within_since(None, time, work).await
    }

    /// The same, with the time counted from `since`.
    pub(crate) async fn within_since<T>(
        &mut self,
        since: Option<Instant>,
        time: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut by = None;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let by = *by.get_or_insert_with(|| since.unwrap_or_else(Instant::now) + time);
            self.poll(by, cx).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_of_the_moment_whatever_came_before() {
        let mut deadline = Deadline::default();
        let long = Duration::from_secs(60);
        assert_eq!(deadline.within(long, pin!(async { 1 })).await, Some(1));
        for secs in [30, 5, 40, 1] {
            let before = Instant::now();
            assert_eq!(deadline.within(Duration::from_secs(secs), pin!(pending::<()>())).await, None);
            assert_eq!(before.elapsed().as_secs(), secs);
        }
        let work = tokio::time::sleep(Duration::from_secs(2));
        assert_eq!(deadline.within(long, pin!(work)).await, Some(()));
    }
}
