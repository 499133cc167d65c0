//! The XDP filter as the daemon keeps it.

use super::flood::Flood;
use super::report::Report;

/// What the daemon knows of floods and of the filter.
#[derive(Debug, Default)]
pub struct XdpFilter {
    /// Whether there is a flood.
    pub flood: Flood,
    /// What is told of it.
    pub report: Report,
    /// What was last asked of the interfaces. Asked again only when the answer may be another: a driver that
    /// refuses is not asked each second.
    pub asked: Option<(bool, Vec<u32>)>,
}

impl XdpFilter {
    /// As a former daemon left it.
    pub fn new(report: Option<Report>, attached: bool) -> Self {
        Self {
            flood: if attached {
                Flood::lasting()
            } else {
                Flood::default()
            },
            report: report.unwrap_or_default(),
            asked: None,
        }
    }
}
