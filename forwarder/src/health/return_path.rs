//! A node of a `transparent` pool whose answers to clients do not come back. Pure.
//!
//! Such a node accepts the checks, which come from the entrance's own address in the tunnel, and leaves the SYNs of
//! clients unanswered: it drops foreign sources (`AllowedIPs`), or sends its answers by its own default route. Nothing
//! but these two together shows it.

/// SYNs of clients in a row that went unanswered before a word is said: one may be lost.
const UNANSWERED: u64 = 3;

/// What has been seen of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnPath {
    /// SYNs of clients that it left unanswered since it last answered one.
    unanswered: u64,
    /// Whether a check succeeded since the first of them.
    checked: bool,
    lost: bool,
}

impl ReturnPath {
    /// Whether its answers are lost.
    pub fn is_lost(self) -> bool {
        self.lost
    }

    /// So many SYNs of clients went unanswered, and so many were answered, by an acceptance or a reset, since the last
    /// time. Returns whether [`Self::is_lost`] has changed.
    pub fn clients(&mut self, unanswered: u64, answered: u64) -> bool {
        if answered > 0 {
            let was = self.lost;
            *self = Self::default();
            return was;
        }
        if unanswered > 0 && self.unanswered == 0 {
            self.checked = false;
        }
        self.unanswered = self.unanswered.saturating_add(unanswered);
        self.judge()
    }

    /// A check has ended. Returns whether [`Self::is_lost`] has changed.
    pub fn check(&mut self, success: bool) -> bool {
        if !success {
            // It answers nobody: that is another trouble.
            let was = self.lost;
            *self = Self::default();
            return was;
        }
        self.checked = self.unanswered > 0;
        self.judge()
    }

    fn judge(&mut self) -> bool {
        let lost = self.lost || (self.checked && self.unanswered >= UNANSWERED);
        std::mem::replace(&mut self.lost, lost) != lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_pass_beside_clients_without_an_answer() {
        let mut own = ReturnPath::default();
        assert!(!own.check(true));
        assert!(!own.clients(2, 0), "one or two may be lost");
        assert!(!own.check(true));
        assert!(own.clients(1, 0));
        assert!(own.is_lost());
        assert!(!own.check(true) && !own.clients(5, 0), "said once");
        assert!(own.clients(0, 1), "an answer came");
        assert!(!own.is_lost());
    }

    #[test]
    fn a_check_after_the_silence_is_needed() {
        let mut own = ReturnPath::default();
        own.check(true);
        assert!(!own.clients(100, 0), "it may have died just now");
        assert!(own.check(true));
    }

    #[test]
    fn a_dead_node_is_no_lost_answer() {
        let mut own = ReturnPath::default();
        own.clients(100, 0);
        assert!(!own.check(false));
        assert!(!own.check(true), "it is back: clients must try it again");
        assert!(own.clients(3, 0) || own.check(true));
        assert!(own.is_lost());
        assert!(own.check(false), "dead now");
        assert!(!own.is_lost());
    }
}
