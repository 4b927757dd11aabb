//! The gateway as a whole: a real NATS server, real HTTP and gRPC; the two services behind it are a
//! scripted server, because their binaries are other crates'.

mod bad_input;
mod dead_letters;
mod devices;
mod document;
mod explain;
mod grpc;
mod kisi_events;
mod members;
mod messages;
mod outages;
mod resume;
mod setup;
mod status;
mod syncs;
mod tokens;
mod upstream;
mod world;
