//! The client against the rules of pacing, against a scripted server, and against the simulator.

mod contract;
mod limited;
mod limiters;
mod measures;
mod pacer;
mod recording;
mod schedule;
mod surface;
mod wire;
