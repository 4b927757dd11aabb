//! A sender as the providers are: several posts at once, in no order, some twice, each signed anew
//! at each attempt, and sent again until it hears a 2xx.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dev_stack::stack::Stack;
use dev_stack::stripe;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::Sha256;
use tokio::task::JoinHandle;

use crate::history::Provider;
use crate::post::Post;
use crate::processes::DEBIT_SECRET;

/// Providers wait from seconds to hours; here the longest wait is this.
const LONGEST_WAIT: Duration = Duration::from_millis(800);
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// `posts` as they arrive: mostly near their place in time, some much later, some twice.
pub fn shuffled(posts: &[Post], dice: &mut StdRng) -> Vec<Arc<Post>> {
    let near = (posts.len() / 4).max(2);
    let mut places = Vec::new();
    for (index, post) in posts.iter().enumerate() {
        let post = Arc::new(post.clone());
        let mut add = |place: usize| places.push((place, Arc::clone(&post)));
        if dice.random_bool(0.05) {
            add(dice.random_range(0..2 * posts.len()));
        } else {
            add(index + dice.random_range(0..near));
        }
        if dice.random_bool(0.15) {
            add(index + dice.random_range(0..posts.len()));
        }
    }
    places.shuffle(dice);
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, post)| post).collect()
}

/// The senders' tasks. They post what is released to them until told to end.
pub struct Senders {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Of each billing-webhook.
    urls: Vec<String>,
    attempts: AtomicUsize,
    stripe_secret: String,
    http: reqwest::Client,
    queue: Mutex<VecDeque<Delivery>>,
    under_way: AtomicUsize,
    has_ended: AtomicBool,
    accepted: Mutex<BTreeSet<String>>,
    counts: Counts,
}

/// What became of the attempts.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicUsize,
    /// Answered 503.
    pub refused: AtomicUsize,
    /// Without an answer.
    pub cut: AtomicUsize,
}

struct Delivery {
    post: Arc<Post>,
    not_before: Instant,
    wait: Duration,
}

impl Senders {
    /// `count` senders that post to the billing-webhooks of `stack` by turns, as a load balancer
    /// without health checks would.
    pub fn start(stack: &Stack, count: usize) -> Self {
        let replicas = stack.addresses["billing-webhook"].iter();
        let shared = Arc::new(Shared {
            urls: replicas.map(|it| format!("http://{}", it.http)).collect(),
            attempts: AtomicUsize::new(0),
            stripe_secret: stack.stripe_secret.clone(),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .expect("a client"),
            queue: Mutex::default(),
            under_way: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            accepted: Mutex::default(),
            counts: Counts::default(),
        });
        let tasks = (0..count)
            .map(|_| tokio::spawn(Arc::clone(&shared).send()))
            .collect();
        Self { shared, tasks }
    }

    /// Hands these over.
    pub fn release(&self, posts: &[Arc<Post>]) {
        let mut queue = self.shared.queue.lock().expect("no panic");
        queue.extend(posts.iter().map(|post| Delivery {
            post: Arc::clone(post),
            not_before: Instant::now(),
            wait: FIRST_WAIT,
        }));
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Whether all that was released has had its 2xx.
    ///
    /// # Panics
    /// When a sender heard an answer that no provider should hear.
    pub fn are_done(&self) -> bool {
        assert!(
            !self.tasks.iter().any(JoinHandle::is_finished),
            "a sender gave up"
        );
        let queue = self.shared.queue.lock().expect("no panic");
        queue.is_empty() && self.shared.under_way.load(Ordering::SeqCst) == 0
    }

    /// Ends them, attempts under way included; the names of the posts that had a 2xx.
    pub async fn end(self) -> BTreeSet<String> {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        let accepted = self.shared.accepted.lock().expect("no panic");
        accepted.clone()
    }
}

impl Shared {
    async fn send(self: Arc<Self>) {
        while !self.has_ended.load(Ordering::SeqCst) {
            let Some(mut delivery) = self.next() else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            if self.attempt(&delivery.post).await {
                let name = delivery.post.name.clone();
                self.accepted.lock().expect("no panic").insert(name);
            } else {
                // The next one is another's turn, so that order is lost at each fault.
                delivery.not_before = Instant::now() + delivery.wait;
                delivery.wait = (delivery.wait * 2).min(LONGEST_WAIT);
                self.queue.lock().expect("no panic").push_back(delivery);
            }
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn next(&self) -> Option<Delivery> {
        let mut queue = self.queue.lock().expect("no panic");
        let now = Instant::now();
        let index = queue.iter().position(|it| it.not_before <= now)?;
        self.under_way.fetch_add(1, Ordering::SeqCst);
        queue.remove(index)
    }

    /// One attempt; true for a 2xx.
    async fn attempt(&self, post: &Post) -> bool {
        let turn = self.attempts.fetch_add(1, Ordering::SeqCst);
        let url = &self.urls[turn % self.urls.len()];
        let (request, received) = match post.provider {
            Provider::Stripe => (self.stripe(url, post), 200),
            Provider::GoCardless => (self.gocardless(url, post), 204),
        };
        let request = request.body(post.body.clone());
        let count = |of: &AtomicUsize| of.fetch_add(1, Ordering::SeqCst);
        match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(status) if status == received => {
                count(&self.counts.accepted);
                true
            }
            Ok(503) => {
                count(&self.counts.refused);
                false
            }
            Ok(other) => panic!("{other} for {}", post.name),
            Err(_) => {
                count(&self.counts.cut);
                false
            }
        }
    }
    fn stripe(&self, url: &str, post: &Post) -> reqwest::RequestBuilder {
        let signature = stripe::signature(&self.stripe_secret, &post.body, Timestamp::now());
        self.http
            .post(format!("{url}/webhooks/stripe/main"))
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", signature)
    }

    fn gocardless(&self, url: &str, post: &Post) -> reqwest::RequestBuilder {
        let mut mac = Hmac::<Sha256>::new_from_slice(DEBIT_SECRET.as_bytes()).expect("any key");
        mac.update(&post.body);
        self.http
            .post(format!("{url}/webhooks/gocardless/debits"))
            .header("content-type", "application/json")
            .header("origin", "https://api.gocardless.com")
            .header(
                "webhook-signature",
                hex::encode(mac.finalize().into_bytes()),
            )
    }
}
