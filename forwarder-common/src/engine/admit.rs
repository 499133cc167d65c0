//! Who gets an answer: one set of functions for both hooks, TC and XDP, so that they cannot disagree.

use super::header::Header;
use super::packet::Source;
use super::store::Store;
use super::syn;
use super::work::Work;
use crate::abi::Address;
use crate::admit;
use crate::segment::Segment;
use crate::tcp::flag;
use crate::verdict::DropReason;

/// What becomes of a SYN of an unknown connection.
#[must_use]
pub enum Admission {
    /// It is answered.
    Answer(Segment),
    /// It is dropped.
    Refuse(DropReason),
    /// This hook cannot tell: the next one decides.
    Undecided,
}

/// Decides about the SYN in `work`: checksum, source, then the SYN-ACK.
#[inline(always)]
pub fn syn<S: Store, P: Source, const V6: bool>(store: S, packet: P, work: &mut Work) -> Admission {
    // A damaged option would be believed for as long as the connection lasts.
    match packet.verify::<V6>(work) {
        Some(true) => {}
        Some(false) => return Admission::Refuse(DropReason::BadChecksum),
        None => return Admission::Undecided,
    }
    if let Some(reason) = source::<S, V6>(store, &work.key.client, &work.local) {
        return Admission::Refuse(reason);
    }
    match syn::answer::<S, P, V6>(store, packet, work) {
        Ok(answer) => Admission::Answer(answer),
        Err(reason) => Admission::Refuse(reason),
    }
}

/// Why a source may not connect to `local`, if so. Asked on the SYN and on the first segment that proves a cookie.
#[inline(always)]
pub fn source<S: Store, const V6: bool>(
    store: S,
    source: &Address,
    local: &Address,
) -> Option<DropReason> {
    if let Some(reason) = admit::impossible::<V6>(source, local) {
        return Some(reason);
    }
    admit::by_rule(store.source_rule(source)?)
}

/// Why a segment is not even looked up.
#[inline(always)]
#[must_use]
pub fn segment(header: &Header) -> Option<DropReason> {
    let flags = header.flags & (flag::SYN | flag::FIN | flag::RST | flag::ACK);
    // No stack sends SYN with FIN, RST or (to a server) ACK, nor a segment without any of the four.
    if header.malformed || flags == 0 || flags & flag::SYN != 0 && flags != flag::SYN {
        return Some(DropReason::MalformedSegment);
    }
    None
}

/// Whether programs of an earlier layout of the tables are attached behind these, while open flows are carried over. What
/// these programs do not know is theirs: they have the flows that are not here yet, and the hellos that were begun with
/// them. New connections are never theirs.
#[inline(always)]
pub fn has_predecessor<S: Store>(store: S) -> bool {
    store
        .settings()
        .is_some_and(|settings| settings.predecessor != 0)
}
