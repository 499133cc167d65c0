//! The stages of the engine on the host: what the kernel programs run, over hash maps and byte vectors.

mod entrance;
mod filter;
mod flow;
mod hello;
mod host;
mod node_answer;
mod reverse;
mod route;
mod skb;
mod syn;
