//! The kit's own promises: what tests of services take for granted.

mod servers;
