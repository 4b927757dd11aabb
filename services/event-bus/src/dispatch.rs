//! Which of the held messages may be handled now: at most so many at once, and of one subject one
//! after the other, in the order they came.
//!
//! Redelivery breaks that order: while a message waits for its retry, later ones of its subject go
//! ahead. Consumers compare versions, so this costs nothing but the attempt.

use std::collections::{HashMap, HashSet, VecDeque};

/// Held messages by subject.
pub(crate) struct Dispatch<T> {
    concurrency: usize,
    per_subject: bool,
    ready: VecDeque<(String, T)>,
    waiting: HashMap<String, VecDeque<T>>,
    claimed: HashSet<String>,
    running: usize,
    held: usize,
}

impl<T> Dispatch<T> {
    pub(crate) fn new(concurrency: usize, per_subject: bool) -> Self {
        Self {
            concurrency: concurrency.max(1),
            per_subject,
            ready: VecDeque::new(),
            waiting: HashMap::new(),
            claimed: HashSet::new(),
            running: 0,
            held: 0,
        }
    }

    /// Messages held, those being handled included.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Takes in a message.
    pub(crate) fn push(&mut self, subject: String, item: T) {
        self.held += 1;
        if self.per_subject && !self.claimed.insert(subject.clone()) {
            self.waiting.entry(subject).or_default().push_back(item);
        } else {
            self.ready.push_back((subject, item));
        }
    }

    /// The next message to handle, if one may start now.
    pub(crate) fn start(&mut self) -> Option<(String, T)> {
        if self.running >= self.concurrency {
            return None;
        }
        let next = self.ready.pop_front()?;
        self.running += 1;
        Some(next)
    }

    /// A message of this subject has been handled.
    pub(crate) fn finish(&mut self, subject: String) {
        self.running = self.running.saturating_sub(1);
        self.held = self.held.saturating_sub(1);
        if !self.per_subject {
            return;
        }
        let next = self.waiting.get_mut(&subject).and_then(VecDeque::pop_front);
        match next {
            Some(item) => self.ready.push_back((subject, item)),
            None => {
                self.waiting.remove(&subject);
                self.claimed.remove(&subject);
            }
        }
    }

    /// Gives back everything that has not started.
    pub(crate) fn abandon(&mut self) -> Vec<T> {
        let ready = self.ready.drain(..).map(|(_, item)| item);
        let waiting = self.waiting.drain().flat_map(|(_, items)| items);
        let items: Vec<T> = ready.chain(waiting).collect();
        self.held = self.held.saturating_sub(items.len());
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subject_runs_in_order_while_others_run_beside_it() {
        let mut dispatch = Dispatch::new(2, true);
        for (subject, item) in [("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
            dispatch.push(subject.to_owned(), item);
        }
        assert_eq!(dispatch.start(), Some(("a".to_owned(), 1)));
        assert_eq!(dispatch.start(), Some(("b".to_owned(), 3)));
        assert_eq!(dispatch.start(), None, "two run");
        dispatch.finish("a".to_owned());
        assert_eq!(dispatch.start(), Some(("c".to_owned(), 4)));
        dispatch.finish("b".to_owned());
        assert_eq!(dispatch.start(), Some(("a".to_owned(), 2)));
        dispatch.finish("a".to_owned());
        dispatch.finish("c".to_owned());
        assert_eq!((dispatch.held(), dispatch.start()), (0, None));
    }

    #[test]
    fn without_order_one_subject_runs_beside_itself() {
        let mut dispatch = Dispatch::new(2, false);
        dispatch.push("a".to_owned(), 1);
        dispatch.push("a".to_owned(), 2);
        assert!(dispatch.start().is_some() && dispatch.start().is_some());
    }

    #[test]
    fn what_has_not_started_can_be_given_back() {
        let mut dispatch = Dispatch::new(1, true);
        for item in 1..=3 {
            dispatch.push("a".to_owned(), item);
        }
        dispatch.start();
        assert_eq!(dispatch.abandon(), [2, 3]);
        assert_eq!(dispatch.held(), 1);
    }
}
