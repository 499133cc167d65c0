//! `forwarder top`: what the entrance does, live, on a terminal.
//!
//! ```text
//! control socket ──sample──▶ two Samples ──picture──▶ rates ──views──▶ Grid ──draw──▶ terminal
//!                                             app (keys: view, sort, filter, pause) ──┘
//! ```
//!
//! Everything up to the terminal is pure, so that it is tested on what a daemon really answered.

pub mod app;
mod draw;
mod grid;
mod picture;
pub mod sample;
pub mod terminal;
mod views;

#[cfg(test)]
mod tests;
