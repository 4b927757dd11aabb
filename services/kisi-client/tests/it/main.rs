//! The client against the rules of pacing, against a scripted server, and against the simulator.

mod limiters;
mod pacer;
mod schedule;
mod wire;
