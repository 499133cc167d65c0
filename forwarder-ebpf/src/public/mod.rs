//! The stages of a hello.

pub mod hello;
pub mod parse;
pub mod pending;
pub mod refuse;
pub mod store;
