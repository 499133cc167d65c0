//! The ClientHello reader against a table of verdicts, against other readers,
//! against the hellos of real clients, and against hostile framing.

mod builder;
mod clients;
mod framing;
mod mutation;
mod oracle;
mod reading;
mod verdicts;
