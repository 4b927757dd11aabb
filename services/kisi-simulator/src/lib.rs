//! x
pub mod answer;
pub mod limiter;
pub mod rows;
pub mod settings;
pub mod spec;
pub mod world;
