//! The client against the rules of pacing, against servers that count and servers that answer as
//! scripted, and against openapi.yaml.

mod contract;
mod limited;
mod limiters;
mod lists;
mod measures;
mod pacer;
mod recording;
mod repeats;
mod schedule;
mod scripted;
mod simulator;
mod surface;
mod wire;
mod withheld;
