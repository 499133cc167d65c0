//! Receive windows of a flow, as each end is to read them.
//!
//! The client was told [`tcp::ENTRANCE_SCALE`] and the node the client's own scale, before either knew the other.

use crate::abi::Flow;
use crate::cookie::CookieOptions;
use crate::node_options::NodeOptions;
use crate::tcp;

impl Flow {
    /// What the node offered in its SYN-ACK.
    #[inline(always)]
    pub const fn node_options(&self) -> NodeOptions {
        NodeOptions(self.node_options)
    }

    /// The window scale that the client offered, or [`tcp::NO_SCALE`].
    #[must_use]
    #[inline(always)]
    pub const fn client_scale(&self) -> u32 {
        CookieOptions::of_cookie(self.entrance_isn).window_scale as u32
    }

    /// A window of the client's as its node is to read it: the node was offered the client's own scale, so that nothing
    /// changes unless the node took none.
    #[must_use]
    #[inline(always)]
    pub const fn window_for_node(&self, window: u16) -> u16 {
        if self.node_options().scale() == tcp::NO_SCALE {
            tcp::rescale(window, self.client_scale(), tcp::NO_SCALE)
        } else {
            window
        }
    }

    /// A window of the node's as the client is to read it, which was told [`tcp::ENTRANCE_SCALE`] if it offered one.
    #[must_use]
    #[inline(always)]
    pub const fn window_for_client(&self, window: u16) -> u16 {
        let told = if self.client_scale() == tcp::NO_SCALE {
            tcp::NO_SCALE
        } else {
            tcp::ENTRANCE_SCALE
        };
        tcp::rescale(window, self.node_options().scale(), told)
    }
}
