//! Slots of [`super::map::TALLIES`].

/// Events that did not fit into the ring.
pub const EVENTS_LOST: u32 = 0;
/// Armour: not of a claimed address, or not TCP; left to the next hook.
pub const XDP_FOREIGN: u32 = 1;
/// Armour: of an open flow; left to the next hook.
pub const XDP_FLOW: u32 = 2;
/// Armour: a hello, or what needs a closer look; left to the next hook.
pub const XDP_HANDED_ON: u32 = 3;
/// Armour: SYNs answered with a cookie.
pub const XDP_ANSWERED: u32 = 4;
/// Armour: dropped, with a count under its reason.
pub const XDP_DROPPED: u32 = 5;
/// Slots and labels of what the armour did with a frame.
pub const XDP: &[(u32, &str)] = &[
    (XDP_FOREIGN, "foreign"),
    (XDP_FLOW, "flow"),
    (XDP_HANDED_ON, "handed_on"),
    (XDP_ANSWERED, "answered"),
    (XDP_DROPPED, "dropped"),
];
/// Size of the map.
pub const COUNT: u32 = 8;
