//! Slots of `STAGES`, and the names of the programs that belong there.

/// Slot and program of each stage.
pub const ALL: &[(u32, &str)] = &[
    (SYN, "stage_syn"),
    (HELLO, "stage_hello"),
    (PARSE, "stage_parse"),
    (ROUTE, "stage_route"),
    (REFUSE, "stage_refuse"),
    (PENDING, "stage_pending"),
    (NODE_ANSWER, "stage_node_answer"),
    (REPLAY, "stage_replay"),
    (ICMP, "stage_icmp"),
    (STORE, "stage_store"),
    (TOO_BIG, "stage_too_big"),
    (PROBE, "stage_probe"),
    (EXTENDED, "stage_extended"),
    (CLIENT_CONTROL, "stage_client_control"),
    (NODE_CONTROL, "stage_node_control"),
    (STRAY, "stage_stray"),
];
/// Answers a SYN with a cookie.
pub const SYN: u32 = 0;
/// A segment of a connection without a flow.
pub const HELLO: u32 = 1;
/// Reads it, a bounded number of steps a call.
pub const PARSE: u32 = 2;
/// Finds route, pool and node, and opens the connection to it.
pub const ROUTE: u32 = 3;
/// Answers what is not forwarded.
pub const REFUSE: u32 = 4;
/// A client segment while the node has not answered, or has not acknowledged the hello.
pub const PENDING: u32 = 5;
/// The node's answer to our SYN.
pub const NODE_ANSWER: u32 = 6;
/// Sends PROXY header and hello to the node.
pub const REPLAY: u32 = 7;
/// Translates ICMP errors.
pub const ICMP: u32 = 8;
/// Keeps a segment of a hello.
pub const STORE: u32 = 9;
/// Tells a client that its segment is too big for the node.
pub const TOO_BIG: u32 = 10;
/// Asks the node of a flow whether it still has the connection.
pub const PROBE: u32 = 11;
/// A TCP header that does not follow a plain IP header: options, extension headers, fragments.
pub const EXTENDED: u32 = 12;
/// A client's SYN, FIN or reset of a flow.
pub const CLIENT_CONTROL: u32 = 13;
/// A node's FIN or reset of a flow.
pub const NODE_CONTROL: u32 = 14;
/// A node's segment of no flow.
pub const STRAY: u32 = 15;
/// Size of `STAGES`.
pub const COUNT: u32 = 16;
