//! Counting, in one line.

/// Adds to counters of a listener, a target or a node: `add!(store.node_stats(number), syns += 1)`.
macro_rules! add {
    ($store:ident.$stats:ident($number:expr), $($field:ident += $amount:expr),+) => {
        $store.$stats($number, |stats| {
            $(stats.$field = stats.$field.wrapping_add($amount);)+
        })
    };
}
pub(crate) use add;
