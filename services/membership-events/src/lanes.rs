//! Who goes next: what waits together goes together.
//!
//! There are a few lanes. What finds one free is done at once, in the task that brings it and by
//! itself, so nothing waits for company and no timer holds anything back. While all are taken, what
//! arrives waits, and whichever lane is free first takes what has come by then: one transaction,
//! one commit for all of it.
//!
//! No two of a group share a name: the later one waits for the next group. So each is seen by
//! itself, as if the others came at another time.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::error::Error;

/// Work that may be done a group at a time.
pub trait Work: Send + Sync + Sized + 'static {
    /// What it needs to be done.
    type Means: Send + Sync + 'static;
    /// What comes of one.
    type Done: Send + 'static;

    /// So many in one transaction: who wants the database next waits as long as it lasts.
    const MOST: usize;

    /// What no other one of its group may touch.
    fn names(&self) -> BTreeSet<String>;

    /// Whether both may be in one group.
    fn fits(&self, other: &Self) -> bool;

    /// Does it by itself, whatever it is.
    fn alone(&self, means: &Self::Means) -> impl Future<Output = Result<Self::Done, Error>> + Send;

    /// Does in one transaction what can be done so; `None` of what has to be done alone after it.
    fn together(
        means: &Self::Means,
        group: &[Self],
    ) -> impl Future<Output = Vec<Option<Result<Self::Done, Error>>>> + Send;
}

/// The lanes of one process. Clones share them.
pub struct Lanes<W: Work>(Arc<Shared<W>>);

impl<W: Work> std::fmt::Debug for Lanes<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Lanes")
            .field("free", &state.free)
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

impl<W: Work> Clone for Lanes<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<W: Work> {
    means: W::Means,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    free: usize,
    waiting: VecDeque<Waiting<W>>,
}

struct Waiting<W: Work> {
    work: W,
    names: BTreeSet<String>,
    answer: oneshot::Sender<Result<W::Done, Error>>,
}

/// How work comes in.
enum Entered<W: Work> {
    /// A lane is free.
    Alone(Turn<W>, Box<W>),
    /// Until its group is committed.
    Queued(oneshot::Receiver<Result<W::Done, Error>>),
}

impl<W: Work> Lanes<W> {
    /// So many, all of them free.
    pub fn new(means: W::Means, free: usize) -> Self {
        Self(Arc::new(Shared {
            means,
            state: Mutex::new(State {
                free,
                waiting: VecDeque::new(),
            }),
        }))
    }

    /// Does it, when its turn comes.
    ///
    /// # Errors
    /// Its own; [`Error::GivenUp`] when the process failed at the group it was in.
    pub async fn take(&self, work: W) -> Result<W::Done, Error> {
        match self.0.enter(work) {
            Entered::Alone(_turn, work) => work.alone(&self.0.means).await,
            Entered::Queued(answered) => answered.await.unwrap_or(Err(Error::GivenUp)),
        }
    }
}

impl<W: Work> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }

    fn enter(self: &Arc<Self>, work: W) -> Entered<W> {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Entered::Alone(Turn(Arc::clone(self)), Box::new(work));
        }
        let (answer, answered) = oneshot::channel();
        state.waiting.push_back(Waiting {
            names: work.names(),
            work,
            answer,
        });
        Entered::Queued(answered)
    }

    /// Does a group, and answers everybody in it.
    async fn flush(&self, group: Vec<Waiting<W>>) {
        let (group, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.work, waiting.answer))
            .unzip();
        let done = if group.len() < 2 {
            group.iter().map(|_| None).collect()
        } else {
            W::together(&self.means, &group).await
        };
        let mut left = Vec::new();
        for ((work, done), answer) in group.iter().zip(done).zip(answers) {
            match done {
                // Whoever does not listen any more asks again.
                Some(done) => drop(answer.send(done)),
                None => left.push((work, answer)),
            }
        }
        // Side by side: where the database is down they all wait for it once.
        let alone = left.into_iter().map(|(work, answer)| async {
            let _ = answer.send(work.alone(&self.means).await);
        });
        join_all(alone).await;
    }
}

/// The right to one lane. Whoever drops it, by a panic too, passes it on.
struct Turn<W: Work>(Arc<Shared<W>>);

impl<W: Work> Drop for Turn<W> {
    fn drop(&mut self) {
        let group = {
            let mut state = self.0.lock();
            let group = next(&mut state.waiting);
            if group.is_empty() {
                state.free += 1;
                return;
            }
            group
        };
        let turn = Self(Arc::clone(&self.0));
        tokio::spawn(async move { turn.0.flush(group).await });
    }
}

/// The next group, oldest first: what fits the oldest and shares no name with what is before it.
fn next<W: Work>(waiting: &mut VecDeque<Waiting<W>>) -> Vec<Waiting<W>> {
    let (mut group, mut later) = (Vec::<Waiting<W>>::new(), VecDeque::new());
    let mut known = BTreeSet::new();
    while group.len() < W::MOST
        && let Some(one) = waiting.pop_front()
    {
        let fits = group.first().is_none_or(|first| first.work.fits(&one.work));
        // What waits for an earlier one holds the next ones of its own back, too.
        let is_free = one.names.is_disjoint(&known);
        known.extend(one.names.iter().cloned());
        if fits && is_free {
            group.push(one);
        } else {
            later.push_back(one);
        }
    }
    later.append(waiting);
    *waiting = later;
    group
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    /// What was done, and what it takes to go on.
    struct Log {
        done: Mutex<Vec<Vec<&'static str>>>,
        go_on: Semaphore,
    }

    impl Log {
        fn new(go_on: usize) -> Arc<Self> {
            Arc::new(Self {
                done: Mutex::default(),
                go_on: Semaphore::new(go_on),
            })
        }

        async fn write(&self, ids: Vec<&'static str>) {
            self.go_on.acquire().await.expect("open").forget();
            assert!(!ids.contains(&"bad"), "as it was to");
            self.done.lock().expect("a log").push(ids);
        }

        fn done(&self) -> Vec<Vec<&'static str>> {
            self.done.lock().expect("a log").clone()
        }
    }

    /// An id, what it touches, and where it belongs.
    struct Errand(&'static str, &'static [&'static str], u8);

    impl Work for Errand {
        type Means = Arc<Log>;
        type Done = &'static str;
        const MOST: usize = 3;

        fn names(&self) -> BTreeSet<String> {
            self.1.iter().map(|name| (*name).to_owned()).collect()
        }

        fn fits(&self, other: &Self) -> bool {
            self.2 == other.2
        }

        async fn alone(&self, log: &Arc<Log>) -> Result<&'static str, Error> {
            log.write(vec![self.0]).await;
            Ok("alone")
        }

        /// All but those called "odd".
        async fn together(
            log: &Arc<Log>,
            group: &[Self],
        ) -> Vec<Option<Result<&'static str, Error>>> {
            log.write(group.iter().map(|errand| errand.0).collect())
                .await;
            let done = group.iter().map(|errand| errand.0 != "odd");
            done.map(|done| done.then_some(Ok("together"))).collect()
        }
    }

    #[tokio::test]
    async fn a_lone_one_is_done_at_once_in_the_task_that_brings_it() {
        let log = Log::new(2);
        let lanes = Lanes::new(Arc::clone(&log), 1);
        for id in ["a", "b"] {
            // Polled once: it waits for no timer, no other task and no company.
            let done = lanes.take(Errand(id, &[], 0)).now_or_never();
            assert!(matches!(done, Some(Ok("alone"))));
        }
        assert_eq!(log.done(), [["a"], ["b"]]);
    }

    #[tokio::test]
    async fn what_waits_while_all_lanes_are_taken_goes_together() {
        let log = Log::new(0);
        let lanes = Lanes::new(Arc::clone(&log), 1);
        let mut under_way = Box::pin(lanes.take(Errand("a", &["1"], 0)));
        assert!((&mut under_way).now_or_never().is_none());
        let waiting = [
            Errand("b", &["2"], 0),
            Errand("odd", &["3"], 0),
            Errand("c", &["4"], 0),
            Errand("d", &["5"], 0),
        ];
        let mut waiting: Vec<_> = waiting
            .into_iter()
            .map(|errand| Box::pin(lanes.take(errand)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none(), "no lane is free");
        }
        log.go_on.add_permits(10);
        assert!(matches!(under_way.await, Ok("alone")));
        let mut answers = Vec::new();
        for one in waiting {
            answers.push(one.await.expect("done"));
        }
        assert_eq!(answers, ["together", "alone", "together", "alone"]);
        assert_eq!(
            log.done(),
            [vec!["a"], vec!["b", "odd", "c"], vec!["odd"], vec!["d"]]
        );
        let done = lanes.take(Errand("e", &[], 0)).now_or_never();
        assert!(matches!(done, Some(Ok("alone"))), "the lane is free again");
    }

    #[tokio::test]
    async fn a_group_that_breaks_off_is_answered_and_passes_its_lane_on() {
        let log = Log::new(0);
        let lanes = Lanes::new(Arc::clone(&log), 1);
        let mut under_way = Box::pin(lanes.take(Errand("a", &[], 0)));
        assert!((&mut under_way).now_or_never().is_none());
        let mut waiting: Vec<_> = ["bad", "b", "c", "d"]
            .map(|id| Box::pin(lanes.take(Errand(id, &[], 0))))
            .into();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        log.go_on.add_permits(10);
        assert!(under_way.await.is_ok());
        let last = waiting.pop().expect("one");
        for one in waiting {
            assert!(matches!(one.await, Err(Error::GivenUp)));
        }
        assert!(matches!(last.await, Ok("alone")));
    }

    fn queue(errands: Vec<Errand>) -> VecDeque<Waiting<Errand>> {
        let waiting = |work: Errand| Waiting {
            names: work.names(),
            work,
            answer: oneshot::channel().0,
        };
        errands.into_iter().map(waiting).collect()
    }

    fn ids(group: &[Waiting<Errand>]) -> Vec<&str> {
        group.iter().map(|one| one.work.0).collect()
    }

    #[test]
    fn what_shares_a_name_goes_one_after_the_other_in_order() {
        let mut queue = queue(vec![
            Errand("a", &["in_1", "sub_1"], 0),
            Errand("b", &["in_2"], 0),
            Errand("c", &["in_1", "sub_3"], 0),
            Errand("d", &["sub_3"], 0),
            Errand("e", &["in_4"], 0),
        ]);
        assert_eq!(ids(&next(&mut queue)), ["a", "b", "e"]);
        assert_eq!(ids(&next(&mut queue)), ["c"]);
        assert_eq!(ids(&next(&mut queue)), ["d"]);
        assert!(next(&mut queue).is_empty());
    }

    #[test]
    fn what_does_not_fit_the_oldest_waits_for_a_group_of_its_own() {
        let mut queue = queue(vec![
            Errand("a", &["1"], 0),
            Errand("b", &["2"], 1),
            Errand("c", &["3"], 0),
            Errand("d", &["4"], 1),
        ]);
        assert_eq!(ids(&next(&mut queue)), ["a", "c"]);
        assert_eq!(ids(&next(&mut queue)), ["b", "d"]);
    }

    #[test]
    fn a_group_has_an_end() {
        let names: [&[&str]; 4] = [&["1"], &["2"], &["3"], &["4"]];
        let mut queue = queue(names.map(|names| Errand("a", names, 0)).into());
        assert_eq!(next(&mut queue).len(), 3);
        assert_eq!(next(&mut queue).len(), 1);
    }
}
