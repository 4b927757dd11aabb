//! The client over real sockets against a server that counts, in real time.
//!
//! The limiters are the simulator's own; requests arrive after a random time on the way. The same
//! models in virtual time, over many more requests, are in `limiters.rs`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kisi_client::model::{AssignmentFilter, NewGroupAssignment, Window};
use kisi_client::{
    ConnectionSettings, HttpKisi, KisiConnection, KisiError, KisiRead, KisiWrite, Lane, Pacer,
    PacerSettings,
};
use kisi_simulator::limiter::{Budget, Limiter};
use kisi_simulator::settings::LimiterModel;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Clone)]
struct Limited {
    model: LimiterModel,
    rate: u32,
    jitter: Duration,
    started: Instant,
    limiter: Arc<Mutex<Limiter>>,
    /// What came, in order, and whether it was admitted.
    came: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Limited {
    /// The server and a client of it that was told `told` requests a second.
    async fn start(
        model: LimiterModel,
        rate: u32,
        jitter: Duration,
        told: f64,
    ) -> (Self, HttpKisi) {
        let server = Self {
            model,
            rate,
            jitter,
            started: Instant::now(),
            limiter: Arc::default(),
            came: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let settings = ConnectionSettings::new(url.parse().expect("a URL"), "gymflow", "a@b.com");
        let pacer = Pacer::new(PacerSettings {
            requests_per_second: told,
        });
        let connection = KisiConnection::new(settings).expect("a connection");
        (
            server,
            HttpKisi::new(connection, "s3cret".to_owned().into(), pacer),
        )
    }

    fn came(&self) -> Vec<(String, bool)> {
        self.came.lock().expect("the log").clone()
    }

    fn refused(&self) -> usize {
        self.came().iter().filter(|(_, admitted)| !admitted).count()
    }
}

async fn answer(State(server): State<Limited>, request: Request) -> Response {
    tokio::time::sleep(server.jitter.mul_f64(rand::random())).await;
    let now = server.started.elapsed().as_micros() as i64;
    let admitted = server.limiter.lock().expect("the limiter").admit(
        server.model,
        server.rate,
        Budget::User(1),
        now,
    );
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    server
        .came
        .lock()
        .expect("the log")
        .push((format!("{method} {path}"), admitted));
    if !admitted {
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    match (method.as_str(), path.as_str()) {
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        ("GET", "/role_assignments") => (
            [("x-collection-range", "*/0")],
            axum::Json(serde_json::json!([])),
        )
            .into_response(),
        _ => axum::Json(serde_json::json!({
            "id": 1, "role_id": "group_basic", "applies_to_type": "Group", "applies_to_id": 1,
            "assignee_type": "User", "assignee_id": 1,
        }))
        .into_response(),
    }
}

/// All at once, of every kind and lane.
async fn burst(kisi: &HttpKisi, requests: i64) {
    let mut tasks = JoinSet::<Result<(), KisiError>>::new();
    for n in 1..=requests {
        let kisi = kisi.clone();
        tasks.spawn(async move {
            match n % 4 {
                0 => kisi
                    .delete_role_assignment(Lane::Revoke.into(), n)
                    .await
                    .map(drop),
                1 => grant(&kisi, n).await,
                2 => kisi.find_role_assignment(Lane::SetUp, n).await.map(drop),
                _ => {
                    let filter = AssignmentFilter::Group(n);
                    kisi.list_role_assignments(Lane::Reconcile, filter)
                        .await
                        .map(drop)
                }
            }
        });
    }
    for result in tasks.join_all().await {
        result.expect("accepted");
    }
}

async fn grant(kisi: &HttpKisi, user_id: i64) -> Result<(), KisiError> {
    let assignment = NewGroupAssignment::basic(1, user_id, Window::default());
    kisi.create_role_assignment(Lane::Grant.into(), &assignment)
        .await
        .map(drop)
}

const ON_THE_WAY: Duration = Duration::from_millis(50);

async fn a_burst_of_22_meets_no_429(model: LimiterModel) {
    let (server, kisi) = Limited::start(model, 5, ON_THE_WAY, 5.0).await;
    burst(&kisi, 22).await;
    assert_eq!((server.refused(), server.came().len()), (0, 22));
}

#[tokio::test]
async fn a_burst_meets_no_429_under_a_fixed_window() {
    a_burst_of_22_meets_no_429(LimiterModel::FixedWindow).await;
}

#[tokio::test]
async fn a_burst_meets_no_429_under_a_sliding_window() {
    a_burst_of_22_meets_no_429(LimiterModel::SlidingWindow).await;
}

#[tokio::test]
async fn a_burst_meets_no_429_under_a_sliding_window_that_counts_refusals() {
    a_burst_of_22_meets_no_429(LimiterModel::SlidingWindowCountingRefused).await;
}

#[tokio::test]
async fn a_burst_meets_no_429_under_a_token_bucket() {
    a_burst_of_22_meets_no_429(LimiterModel::TokenBucket).await;
}

/// One a second, so that the five percent are more than what a busy machine takes or gives.
#[tokio::test]
async fn a_burst_meets_no_429_under_a_token_bucket_without_a_burst() {
    let (server, kisi) = Limited::start(LimiterModel::TokenBucket1, 1, Duration::ZERO, 1.0).await;
    burst(&kisi, 5).await;
    assert_eq!((server.refused(), server.came().len()), (0, 5));
}

/// The wrong client: without it the tests above could pass against a server that never refuses.
#[tokio::test]
async fn a_client_that_was_told_twice_the_limit_is_refused_and_finds_the_pace() {
    let mut models = JoinSet::new();
    for model in [
        LimiterModel::FixedWindow,
        LimiterModel::SlidingWindow,
        LimiterModel::SlidingWindowCountingRefused,
        LimiterModel::TokenBucket,
        LimiterModel::TokenBucket1,
    ] {
        models.spawn(async move {
            let (server, kisi) = Limited::start(model, 20, Duration::ZERO, 40.0).await;
            burst(&kisi, 48).await;
            (model, server.refused(), server.started.elapsed())
        });
    }
    for (model, refused, took) in models.join_all().await {
        // Every request was accepted in the end, and few were sent in vain.
        assert!(
            (1..=8).contains(&refused),
            "{model:?}: {refused} refused in {took:?}"
        );
    }
}

#[tokio::test]
async fn a_revoke_queued_behind_200_grants_is_the_next_request_to_arrive() {
    let (server, kisi) = Limited::start(LimiterModel::Off, 0, Duration::ZERO, 50.0).await;
    let mut grants = JoinSet::new();
    for n in 1..=200 {
        let kisi = kisi.clone();
        grants.spawn(async move { grant(&kisi, n).await });
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.came().len() < 10 {
        assert!(Instant::now() < deadline, "the grants go out");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = server.came().len();
    assert!(kisi.pacer().waiting(Lane::Grant) > 150);
    kisi.delete_role_assignment(Lane::Revoke.into(), 900_001)
        .await
        .expect("revoked");
    let came = server.came();
    let place = came
        .iter()
        .position(|(what, _)| what.starts_with("DELETE"))
        .expect("it came");
    // At most the one that was in flight when the revoke joined arrived before it.
    assert!(place <= before + 1, "{before} before, at {place}");
    grants.abort_all();
}
