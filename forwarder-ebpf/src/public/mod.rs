//! The public side: segments from clients.

pub mod hello;
pub mod ingress;
pub mod parse;
pub mod pending;
pub mod probe;
pub mod refuse;
pub mod route;
pub mod splice;
pub mod store;
pub mod syn;
