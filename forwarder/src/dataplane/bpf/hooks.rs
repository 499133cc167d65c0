//! What the kernel says stands at the ingress of an interface, in the order in which packets meet it.
//!
//! Others may detach what the daemon attached (`tc qdisc del dev eth0 clsact`, `bpftool link detach`), and may put a
//! program before it that lets nothing through to it. Neither is told to anybody; so it is looked at.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifier, TcAttachType};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::attach::{self, Hook};
use super::pins::{Pins, Side};
use crate::dataplane::bpf::attach::Attachment;
use crate::link::survey::Surveyor;

/// A program, or a filter of another kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The program's name, or the filter's kind.
    pub name: String,
    /// The program's id; 0 of a filter of another kind.
    pub id: u32,
    /// By what it is attached.
    pub hook: Hook,
    /// Whether it is a filter at the place of ours.
    pub in_our_place: bool,
}

/// What stands at one interface, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing(pub Vec<Found>);

impl Standing {
    /// Whether a program stands there.
    pub fn has(&self, id: u32) -> bool {
        self.0.iter().any(|own| own.id == id)
    }

    /// What packets meet before a program.
    pub fn before(&self, id: u32) -> &[Found] {
        let at = self.0.iter().position(|own| own.id == id);
        self.0.get(..at.unwrap_or_default()).unwrap_or_default()
    }

    /// The id of the program that was attached, if it still is.
    pub fn own(&self, pins: &Pins, place: &Attachment) -> Option<u32> {
        match place.hook {
            Hook::Tcx => {
                let id = pinned_program(pins, place.side, place.ifindex)?;
                self.has(id).then_some(id)
            }
            Hook::Clsact => {
                let own = self.0.iter().find(|own| own.in_our_place);
                own.map(|own| own.id)
            }
        }
    }
}

/// The program of a pinned link.
fn pinned_program(pins: &Pins, side: Side, ifindex: u32) -> Option<u32> {
    let pinned = PinnedLink::from_pin(pins.link(side, ifindex)).ok()?;
    Some(FdLink::from(pinned).info().ok()?.program_id())
}

/// Looks at an interface. `None` if the kernel does not tell.
pub async fn look(surveyor: &Surveyor, interface: &str, ifindex: u32) -> Option<Standing> {
    let mut all = Vec::new();
    // A kernel without TCX does not know the question.
    if let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        all.extend(programs.iter().map(|program| Found {
            name: program.name_as_str().unwrap_or_default().to_owned(),
            id: program.id(),
            hook: Hook::Tcx,
            in_our_place: false,
        }));
    }
    let mut filters = surveyor.filters(ifindex).await.ok()?;
    filters.sort_by_key(priority);
    all.extend(filters.iter().filter_map(filter));
    Some(Standing(all))
}

/// As [`look`], for whoever has no runtime, or must not wait in it.
pub fn look_now<'a>(places: impl Iterator<Item = &'a Attachment>) -> Vec<Option<Standing>> {
    let places: Vec<_> = places.collect();
    let look_at_all = || -> Option<Vec<_>> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().ok()?;
        runtime.block_on(async {
            let surveyor = Surveyor::open().ok()?;
            let mut all = Vec::new();
            for place in &places {
                all.push(look(&surveyor, &place.interface, place.ifindex).await);
            }
            Some(all)
        })
    };
    let found = std::thread::scope(|scope| scope.spawn(look_at_all).join().ok().flatten());
    found.unwrap_or_else(|| vec![None; places.len()])
}

fn priority(message: &TcMessage) -> u16 {
    (message.header.info >> 16) as u16
}

/// A filter, if the message is about one and not about the chain it stands in.
fn filter(message: &TcMessage) -> Option<Found> {
    let mut kind = None;
    let mut name = None;
    let mut id = 0;
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(word) => kind = Some(word.clone()),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(word)) => {
                            name = Some(word.clone());
                        }
                        TcOption::Bpf(TcFilterBpfOption::ProgId(number)) => id = *number,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if message.header.handle == TcHandle::UNSPEC {
        return None;
    }
    let TcHandle { major, minor } = message.header.handle;
    Some(Found {
        name: name.or(kind)?,
        id,
        hook: Hook::Clsact,
        in_our_place: attach::is_our_place(priority(message), major, minor),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_is_told_in_order() {
        let found = |name: &str, id| Found {
            name: name.to_owned(),
            id,
            hook: Hook::Clsact,
            in_our_place: false,
        };
        let standing = Standing(vec![found("a", 1), found("b", 2), found("c", 3)]);
        assert!(standing.has(3) && !standing.has(4));
        assert_eq!(standing.before(2), [found("a", 1)]);
        assert!(standing.before(1).is_empty() && standing.before(9).is_empty());
    }
}
