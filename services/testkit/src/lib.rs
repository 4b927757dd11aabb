#![doc = include_str!("../README.md")]

pub mod eventually;
pub mod jwt;
pub mod nats;
pub mod port;
pub mod postgres;
mod process;
mod tools;

pub use eventually::{eventually, eventually_some};
pub use jwt::TokenIssuer;
pub use nats::NatsServer;
pub use port::free_port;
pub use postgres::{Postgres, TestDatabase};
