#![doc = include_str!("../README.md")]

pub mod clock;
pub mod grpc;
pub mod health;
pub mod http_server;
pub mod identity;
pub mod lifecycle;
pub mod metrics;
pub mod problem;
pub mod settings;
pub mod telemetry;
pub mod tls;
pub mod trace_context;
