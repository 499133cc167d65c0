//! Packets, and what the verifier has to be shown of them. The only packet pointers and the only inline assembly are here.

pub mod bounds;
mod host;
mod rewrite;
mod skb;
mod xdp;

/// As the stages of a hello call it.
pub use forwarder_common::engine::ETHERNET;
pub use skb::Skb;
pub use skb::Skb as Packet;
pub use xdp::XdpFrame;
