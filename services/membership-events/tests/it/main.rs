//! The service as its neighbours meet it: over gRPC and the bus, on both databases, with a real
//! NATS server.

mod billing;
mod decisions;
mod erasure;
mod explain;
mod faults;
mod history;
mod interleavings;
mod linking;
mod midnight;
mod random;
mod raw_call;
mod requests;
mod resume_requests;
mod roster;
mod timers;
mod world;
mod writes;
