//! A whole process from start to end: the example `hello`, which cargo builds beside the tests.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use testkit::{eventually, free_port};

fn hello(variables: &[(&str, &str)]) -> Command {
    let mut program: PathBuf = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.push("examples/hello");
    assert!(
        program.is_file(),
        "`cargo test` without --test builds the example"
    );
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends the process when a test fails halfway.
struct Running(Option<Child>);

impl Running {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let addr = format!("127.0.0.1:{}", free_port());
        let mut all = vec![("HEALTH_ADDR", &*addr), ("GREETING", "hello")];
        all.extend_from_slice(variables);
        let running = Self(Some(hello(&all).spawn().unwrap()));
        let url = format!("http://{addr}/readyz");
        service_runtime::tls::install_crypto_provider();
        eventually("it is ready", Duration::from_secs(10), async || {
            reqwest::get(&url)
                .await
                .is_ok_and(|a| a.status().is_success())
        })
        .await;
        running
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    async fn output(mut self) -> Output {
        let child = self.0.take().unwrap();
        tokio::task::spawn_blocking(|| child.wait_with_output())
            .await
            .unwrap()
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_missing_setting_ends_the_start_with_one_line_and_code_2() {
    // An empty variable is what a template leaves behind: not set.
    for variables in [vec![], vec![("GREETING", "")]] {
        let output = hello(&variables).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(lines, "missing setting: GREETING\n");
    }
}

#[test]
fn a_bad_filter_or_address_is_named_too() {
    let cases = [
        ("RUST_LOG", "=,=nonsense"),
        ("HEALTH_ADDR", "everywhere"),
        ("LOG_FORMAT", "xml"),
    ];
    for (variable, value) in cases {
        let output = hello(&[("GREETING", "x"), (variable, value)])
            .output()
            .unwrap();
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{lines}");
        assert!(
            lines.starts_with(&format!("bad setting {variable}")),
            "{lines}"
        );
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }
}

#[test]
fn help_is_no_failure_and_shows_no_values() {
    let output = hello(&[("GREETING", "hush")])
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for variable in [
        "GREETING",
        "HEALTH_ADDR",
        "LOG_FORMAT",
        "RUST_LOG",
        "DRAIN_TIME",
    ] {
        assert!(text.contains(variable), "{text}");
    }
    assert!(!text.contains("hush"), "{text}");
}

#[tokio::test]
async fn both_stop_signals_end_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let running = Running::start(&[("LOG_FORMAT", "json")]).await;
        running.signal(signal);
        let output = running.output().await;
        assert_eq!(output.status.code(), Some(0));
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(first["service.name"], "hello", "{log}");
        assert!(log.contains("was told to stop and drains"), "{log}");
    }
}

#[tokio::test]
async fn what_outlasts_the_drain_time_is_abandoned_and_that_shows() {
    let running = Running::start(&[("LAST_GREETING_TAKES", "1h"), ("DRAIN_TIME", "200ms")]).await;
    running.signal("-TERM");
    let output = tokio::time::timeout(Duration::from_secs(10), running.output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans;
        let names = spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .map(|span| span.name.clone());
        self.0.lock().unwrap().extend(names);
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tokio::test]
async fn the_last_spans_leave_before_the_process_does() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)),
    );
    let running = Running::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        // The batch would go long after the end.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ])
    .await;
    running.signal("-TERM");
    assert_eq!(running.output().await.status.code(), Some(0));
    assert!(collector.0.lock().unwrap().contains(&"greeting".to_owned()));
}
