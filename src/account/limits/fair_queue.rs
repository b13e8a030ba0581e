//! A fair queue for a scarce resource. Waiters of one flow (for example a client's address) form a line, and lines
//! are served round-robin, so a flood delays only its own flow. Attempts on one subject (an account) run one at a
//! time. Beyond a bound, the flow with the most waiters gives up its newest one, instead of the newcomer being
//! rejected.
//! [`Scheduler`] is the whole algorithm, without time or waiting; [`FairQueue`] makes tasks wait by it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Stopwatch;

/// Waiters of one flow share one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flow {
    /// A client's address; IPv6 by /64.
    Network(IpAddr),
    /// A connection whose client addresses are unknown.
    Connection(usize),
    /// An account, by a hash of its id.
    Account(u64),
}

/// Maximum numbers of waiters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Per flow.
    pub(crate) flow: usize,
    /// Per subject.
    pub(crate) subject: usize,
    /// In total.
    pub(crate) all: usize,
}

/// The queue is full, or the permit did not arrive in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

struct Waiter<T> {
    id: u64,
    subject: Option<u64>,
    value: T,
}

/// The waiters, the order in which they are served, and the subjects in progress.
struct Scheduler<T> {
    bounds: Bounds,
    /// Free permits.
    free: usize,
    by_flow: HashMap<Flow, VecDeque<Waiter<T>>, ahash::RandomState>,
    /// Flows with waiters, least recently served first.
    rotation: VecDeque<Flow>,
    waiting: usize,
    /// Subjects with an attempt in progress.
    busy: HashSet<u64, ahash::RandomState>,
    next_id: u64,
}

impl<T> Scheduler<T> {
    fn new(permits: usize, bounds: Bounds) -> Self {
        Self {
            bounds,
            free: permits,
            by_flow: HashMap::default(),
            rotation: VecDeque::new(),
            waiting: 0,
            busy: HashSet::default(),
            next_id: 0,
        }
    }

    /// Appends a waiter to its flow's line. Gives its id, and the waiter that was displaced.
    fn enqueue(&mut self, flow: Flow, subject: Option<u64>, value: T) -> Result<(u64, Option<T>), Busy> {
        if self.by_flow.get(&flow).map_or(0, VecDeque::len) >= self.bounds.flow {
            return Err(Busy);
        }
        let of_subject = |waiter: &Waiter<T>| waiter.subject == subject;
        let on_subject = || self.by_flow.values().flatten().filter(|waiter| of_subject(waiter)).count();
        let displaced = if subject.is_some() && on_subject() >= self.bounds.subject {
            Some(self.displace(flow, of_subject)?)
        } else if self.waiting >= self.bounds.all {
            Some(self.displace(flow, |_| true)?)
        } else {
            None
        };
        self.next_id += 1;
        let line = self.by_flow.entry(flow).or_default();
        if line.is_empty() {
            self.rotation.push_back(flow);
        }
        line.push_back(Waiter { id: self.next_id, subject, value });
        self.waiting += 1;
        Ok((self.next_id, displaced))
    }

    /// Removes the newest matching waiter of the flow with the most of them, if that flow has more than the
    /// newcomer's will have.
    fn displace(&mut self, newcomer: Flow, matches: impl Fn(&Waiter<T>) -> bool) -> Result<T, Busy> {
        let count = |line: &VecDeque<Waiter<T>>| line.iter().filter(|waiter| matches(waiter)).count();
        let own = self.by_flow.get(&newcomer).map_or(0, count);
        let most = self.by_flow.iter().map(|(flow, line)| (count(line), *flow)).max_by_key(|(count, _)| *count);
        let (most, flow) = most.ok_or(Busy)?;
        let newest = self.by_flow.get(&flow).and_then(|line| line.iter().rposition(matches));
        newest.filter(|_| most > own + 1).and_then(|at| self.take(flow, at)).map(|waiter| waiter.value).ok_or(Busy)
    }

    fn take(&mut self, flow: Flow, at: usize) -> Option<Waiter<T>> {
        let line = self.by_flow.get_mut(&flow)?;
        let waiter = line.remove(at)?;
        self.waiting -= 1;
        if line.is_empty() {
            self.by_flow.remove(&flow);
            self.rotation.retain(|other| *other != flow);
        }
        Some(waiter)
    }

    /// The waiter to serve now: the first in rotation whose subject has nothing in progress.
    fn next(&mut self) -> Option<(Option<u64>, T)> {
        if self.free == 0 {
            return None;
        }
        let busy = &self.busy;
        let ready = |waiter: &Waiter<T>| waiter.subject.is_none_or(|subject| !busy.contains(&subject));
        let mut flows = self.rotation.iter().enumerate();
        let (turn, flow, at) = flows.find_map(|(turn, flow)| {
            let at = self.by_flow.get(flow)?.iter().position(ready)?;
            Some((turn, *flow, at))
        })?;
        // the flow moves to the end before `take` may remove it from the rotation
        self.rotation.remove(turn);
        self.rotation.push_back(flow);
        let waiter = self.take(flow, at)?;
        self.free -= 1;
        self.busy.extend(waiter.subject);
        Some((waiter.subject, waiter.value))
    }

    /// Returns a permit.
    fn release(&mut self, subject: Option<u64>) {
        self.free += 1;
        if let Some(subject) = subject {
            self.busy.remove(&subject);
        }
    }

    /// Removes a waiter.
    fn cancel(&mut self, flow: Flow, id: u64) {
        let line = self.by_flow.get(&flow);
        if let Some(at) = line.and_then(|line| line.iter().position(|waiter| waiter.id == id)) {
            self.take(flow, at);
        }
    }
}

/// A waiting task.
struct WaitingTask {
    since: Stopwatch,
    granted: oneshot::Sender<Permit>,
}

/// A fair queue for tasks.
#[derive(Clone)]
pub(crate) struct FairQueue(Arc<Mutex<Scheduler<WaitingTask>>>);

/// The right to proceed; returned when dropped.
pub(crate) struct Permit {
    queue: FairQueue,
    subject: Option<u64>,
}

/// A place in a line; removed when dropped.
struct QueueEntry<'q> {
    queue: &'q FairQueue,
    flow: Flow,
    id: u64,
}

impl FairQueue {
    /// `permits`: how many may proceed at once.
    pub(crate) fn new(permits: usize, bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Scheduler::new(permits, bounds))))
    }

    /// Waits for a permit, at most `timeout`. `subject`: only one permit per subject at a time.
    pub(crate) async fn permit(&self, flow: Flow, subject: Option<u64>, timeout: Duration) -> Result<Permit, Busy> {
        let (granted, permit) = oneshot::channel();
        let (id, displaced) = self.0.lock().enqueue(flow, subject, WaitingTask { since: Stopwatch::new(), granted })?;
        // its receiver sees a closed channel: `Busy`
        drop(displaced);
        let _entry = QueueEntry { queue: self, flow, id };
        self.grant();
        tokio::time::timeout(timeout, permit).await.map_err(|_| Busy)?.map_err(|_| Busy)
    }

    fn grant(&self) {
        loop {
            let next = self.0.lock().next();
            let Some((subject, waiting)) = next else { return };
            // if the waiter has just left, its permit is dropped and returned
            let _ = waiting.granted.send(Permit { queue: self.clone(), subject });
        }
    }

    /// Number of waiters, and the longest wait so far.
    pub(crate) fn waiting(&self) -> (usize, Duration) {
        let scheduler = self.0.lock();
        let first =
            scheduler.by_flow.values().filter_map(VecDeque::front).map(|waiter| waiter.value.since.elapsed()).max();
        (scheduler.waiting, first.unwrap_or_default())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.0.lock().release(self.subject);
        self.queue.grant();
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.queue.0.lock().cancel(self.flow, self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { flow: 4, subject: 3, all: 10 };
    const PERMITS: usize = 2;

    #[derive(Debug, Clone)]
    enum Step {
        Join(usize, Option<u64>),
        Serve,
        Finish(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0..5usize, prop::option::of(0..3u64)).prop_map(|(flow, subject)| Step::Join(flow, subject)),
            3 => Just(Step::Serve),
            3 => any::<usize>().prop_map(Step::Finish),
            1 => any::<usize>().prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// A model of the queue, from the outside.
    #[derive(Default)]
    struct Model {
        /// Waiters by number: flow, subject, id.
        waiting: BTreeMap<usize, (usize, Option<u64>, u64)>,
        under_way: Vec<Option<u64>>,
        /// When a flow was last served, or arrived.
        turns: BTreeMap<usize, usize>,
        at: usize,
    }

    impl Model {
        fn is_ready(&self, subject: Option<u64>) -> bool {
            subject.is_none() || !self.under_way.contains(&subject)
        }

        fn count(&self, matches: impl Fn(usize, Option<u64>) -> bool) -> usize {
            self.waiting.values().filter(|(flow, subject, _)| matches(*flow, *subject)).count()
        }

        fn of_flow(&self, flow: usize, subject: Option<u64>) -> usize {
            self.count(|other, on| other == flow && (subject.is_none() || on == subject))
        }

        fn gone(&mut self, number: usize) -> usize {
            let (flow, ..) = self.waiting.remove(&number).expect("it waited");
            if self.of_flow(flow, None) == 0 {
                self.turns.remove(&flow);
            }
            flow
        }

        fn enqueue(&mut self, scheduler: &mut Scheduler<usize>, flow: usize, subject: Option<u64>) {
            let joined = scheduler.enqueue(Flow::Connection(flow), subject, self.at);
            let own = self.of_flow(flow, None);
            let on_subject = self.count(|_, on| subject.is_some() && on == subject);
            let full = on_subject >= BOUNDS.subject || self.waiting.len() >= BOUNDS.all;
            let Ok((id, displaced)) = joined else {
                assert!(own == BOUNDS.flow || full, "turned away although there was room");
                let subject = subject.filter(|_| on_subject >= BOUNDS.subject);
                let most = (0..5).map(|other| self.of_flow(other, subject)).max();
                assert!(own == BOUNDS.flow || most <= Some(self.of_flow(flow, subject) + 1), "somebody had more");
                return;
            };
            assert_eq!(displaced.is_some(), full);
            if let Some(number) = displaced {
                assert_ne!(self.gone(number), flow, "whoever has less waiting gives way to nobody");
            }
            self.waiting.insert(self.at, (flow, subject, id));
            self.turns.entry(flow).or_insert(self.at);
        }

        fn serve(&mut self, scheduler: &mut Scheduler<usize>) -> bool {
            let Some((subject, number)) = scheduler.next() else {
                let ready = self.waiting.values().any(|(_, subject, _)| self.is_ready(*subject));
                assert!(!ready || self.under_way.len() == PERMITS, "a permit lies idle");
                return false;
            };
            let (flow, of, _) = self.waiting[&number];
            assert!(of == subject && self.is_ready(subject), "one attempt on a subject at a time");
            let turn = self.turns[&flow];
            for (other, (line, subject, _)) in &self.waiting {
                if self.is_ready(*subject) {
                    assert!(*line != flow || *other >= number, "within a flow the first comes first");
                    assert!(*line == flow || self.turns[line] > turn, "a flow that waited longer was passed over");
                }
            }
            self.gone(number);
            if self.of_flow(flow, None) > 0 {
                self.turns.insert(flow, self.at);
            }
            self.under_way.push(subject);
            true
        }

        fn take(&mut self, scheduler: &mut Scheduler<usize>, step: &Step) {
            self.at += 1;
            match *step {
                Step::Join(flow, subject) => self.enqueue(scheduler, flow, subject),
                Step::Serve => {
                    self.serve(scheduler);
                }
                Step::Finish(which) if !self.under_way.is_empty() => {
                    let subject = self.under_way.swap_remove(which % self.under_way.len());
                    scheduler.release(subject);
                }
                Step::Leave(which) if !self.waiting.is_empty() => {
                    let number = *self.waiting.keys().nth(which % self.waiting.len()).expect("one of them");
                    let (flow, _, id) = self.waiting[&number];
                    scheduler.cancel(Flow::Connection(flow), id);
                    self.gone(number);
                }
                _ => {}
            }
            assert!(self.under_way.len() <= PERMITS);
            assert!(scheduler.waiting == self.waiting.len());
            assert!(scheduler.waiting <= BOUNDS.all);
            assert!((0..5).all(|flow| self.of_flow(flow, None) <= BOUNDS.flow));
            assert!((0..3).all(|subject| self.count(|_, on| on == Some(subject)) <= BOUNDS.subject));
        }
    }

    proptest! {
        /// No starvation, bounds hold, cancelled waiters are gone, and all others are served.
        #[test]
        fn whatever_comes_bounds_hold_turns_are_fair_and_all_who_stay_are_served(steps in steps()) {
            let (mut scheduler, mut model) = (Scheduler::new(PERMITS, BOUNDS), Model::default());
            for step in &steps {
                model.take(&mut scheduler, step);
            }
            while !model.waiting.is_empty() {
                model.at += 1;
                if !model.serve(&mut scheduler) {
                    let subject = model.under_way.pop().expect("somebody waits for what is under way");
                    scheduler.release(subject);
                }
            }
            model.under_way.drain(..).for_each(|subject| scheduler.release(subject));
            prop_assert!(scheduler.by_flow.is_empty() && scheduler.rotation.is_empty() && scheduler.busy.is_empty());
            prop_assert_eq!((scheduler.waiting, scheduler.free), (0, PERMITS));
        }
    }

    const FOREVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_cancelled_waiter_leaves_the_queue_and_keeps_no_permit() {
        let queue = FairQueue::new(1, BOUNDS);
        let held = queue.permit(Flow::Connection(1), None, FOREVER).await.ok().unwrap();
        let mut first = Box::pin(queue.permit(Flow::Connection(2), None, FOREVER));
        let mut second = Box::pin(queue.permit(Flow::Connection(3), None, FOREVER));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(queue.waiting().0, 2);
        drop(first);
        assert_eq!(queue.waiting().0, 1);
        drop(held);
        // granted to a waiter that cancels before receiving it
        drop(second);
        let third = tokio::time::timeout(FOREVER, queue.permit(Flow::Connection(4), None, FOREVER)).await;
        assert!(third.is_ok_and(|permit| permit.is_ok()));
        assert_eq!((queue.waiting().0, queue.0.lock().free), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_times_out_is_busy_and_others_keep_waiting() {
        let queue = FairQueue::new(1, BOUNDS);
        let held = queue.permit(Flow::Connection(1), None, FOREVER).await.ok().unwrap();
        let (hasty, patient) = tokio::join!(queue.permit(Flow::Connection(2), None, Duration::from_secs(10)), async {
            let mut patient = Box::pin(queue.permit(Flow::Connection(3), None, FOREVER));
            tokio::select! {
                _ = &mut patient => panic!("there was one permit"),
                () = tokio::time::sleep(Duration::from_secs(11)) => drop(held),
            }
            patient.await
        });
        assert_eq!((hasty.err(), patient.is_ok()), (Some(Busy), true));
    }

    #[tokio::test]
    async fn a_full_queue_displaces_the_flood_and_not_the_newcomer() {
        let queue = FairQueue::new(1, BOUNDS);
        let held = queue.permit(Flow::Connection(0), None, FOREVER).await.ok().unwrap();
        let wait = |flow| Box::pin(queue.permit(Flow::Connection(flow), None, FOREVER));
        let mut flood: Vec<_> = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3].map(wait).into();
        for waiter in &mut flood {
            assert!(futures_util::poll!(waiter).is_pending());
        }
        assert_eq!(wait(1).await.err(), Some(Busy), "as many as one flow may have");
        let mut newcomer = wait(4);
        assert!(futures_util::poll!(&mut newcomer).is_pending());
        let mut given_way = 0;
        for waiter in &mut flood {
            given_way += usize::from(futures_util::poll!(waiter).is_ready());
        }
        assert_eq!((given_way, queue.waiting().0), (1, BOUNDS.all));
        drop((held, flood));
        assert!(newcomer.await.is_ok());
    }
}
