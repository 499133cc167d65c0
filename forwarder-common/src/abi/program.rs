//! Programs that are attached: ingress of a public or a tunnel interface, with or without an Ethernet header.

/// Ingress of a public Ethernet interface.
pub const PUBLIC_L2: &str = "public_l2";
/// Ingress of a public interface without link-layer header (ppp, venet, tun).
pub const PUBLIC_L3: &str = "public_l3";
/// Ingress of an Ethernet-like tunnel (veth, vxlan, gretap).
pub const TUNNEL_L2: &str = "tunnel_l2";
/// Ingress of a tunnel without link-layer header (wg, tailscale, tun).
pub const TUNNEL_L3: &str = "tunnel_l3";
/// XDP on a public Ethernet interface, while it is flooded.
pub const ARMOUR: &str = "armour";
/// The same for drivers that hand over frames in several buffers (Linux 5.18).
pub const ARMOUR_FRAGS: &str = "armour_frags";
