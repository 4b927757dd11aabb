//! The simulator over real HTTP: each mode shows itself, and each has a client that is wrong in it.

mod accounts;
mod document;
mod doors;
mod grants;
mod harness;
mod limits;
mod lists;
mod rights;
mod strictness;
mod webhooks;
mod wrong_grants;
mod wrong_readers;
