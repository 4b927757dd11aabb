//! Logs and traces of a process: one subscriber, started first and flushed last.
//!
//! Logs go to stderr. Spans leave the process only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set;
//! everything else about the exporter is said in OpenTelemetry's own `OTEL_*` variables.

use clap::{Args, ValueEnum};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What to log, how, and where spans go.
#[derive(Debug, Clone, Args)]
pub struct TelemetrySettings {
    /// How a line of the log looks.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "pretty")]
    pub log_format: LogFormat,
    /// What is logged: a level for all, and others by target, for example info,event_bus=debug.
    #[arg(long = "log", env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
    /// OTLP (gRPC) address for spans. Without it no span leaves the process.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

impl TelemetrySettings {
    /// Warnings only, no exporter.
    pub fn for_testing() -> Self {
        Self {
            log_format: LogFormat::Pretty,
            rust_log: "warn".to_owned(),
            otel_exporter_otlp_endpoint: None,
        }
    }
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is no filter.
    #[error("bad setting RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter does not accept its settings.
    #[error("bad setting OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Started telemetry; [`Telemetry::flush`] it at the end.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs and traces for `service`. Needs a running Tokio runtime when spans are exported.
/// Where a subscriber is in place already (tests), that one stays.
pub fn start(
    service: &'static str,
    settings: &TelemetrySettings,
) -> Result<Telemetry, TelemetryError> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    // By target and level; a filter by span fields would bring a regex engine into each process.
    let filter: Targets = settings.rust_log.parse()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = match &settings.otel_exporter_otlp_endpoint {
        Some(endpoint) => Some(exporting(service, endpoint)?),
        None => None,
    };
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    let _ = tracing_subscriber::registry()
        .with(spans)
        .with(lines)
        .with(filter)
        .try_init();
    Ok(Telemetry { provider })
}

fn exporting(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    crate::tls::install_crypto_provider();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(provider)
}

impl Telemetry {
    /// Sends what is still held, for a few seconds at most.
    pub async fn flush(self) {
        let Some(provider) = self.provider else {
            return;
        };
        // The provider waits in place; its exporter needs this runtime's threads meanwhile.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(error = %error, "The last spans were not delivered");
        }
    }
}
