//! `[flow_log]` and `[geoip]`: what is written about flows, and where clients are looked up.

use std::path::{Path, PathBuf};

use super::context::Context;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{FlowLog, FlowLogTo, GeoIp};
use crate::config::raw::{RawFlowLog, RawGeoIp, Text};
use crate::config::suggest;

const RATE: u32 = 100;
/// Refusals cost an attacker nothing: this is at most 28,800 lines a day, whatever he does.
const REFUSED_PER_MINUTE: u32 = 20;
const REFUSED_PER_MINUTE_MAX: u32 = 60_000_000;
const MAX_SIZE: u64 = 256_000_000;
const MAX_SIZE_RANGE: std::ops::RangeInclusive<u64> = 1_000_000..=1_000_000_000_000;
const BURST: u32 = 1_000;
/// Most lines a second, and at once.
const RATE_MAX: u32 = 1_000_000;

pub(super) fn flow_log(context: &mut Context<'_>) -> Option<FlowLog> {
    let absent = RawFlowLog::default();
    let shape = context.shape;
    let raw = shape.raw.flow_log.as_ref();
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let to = match &raw.to {
        Some(text) => destination(context, text),
        None => Some(FlowLogTo::Log),
    };
    let rate = context.number("rate", raw.rate.as_ref(), 1..=RATE_MAX, RATE);
    let burst = context.number("burst", raw.burst.as_ref(), 1..=RATE_MAX, BURST);
    let refused_per_minute = context.number(
        "refused_per_minute",
        raw.refused_per_minute.as_ref(),
        0..=REFUSED_PER_MINUTE_MAX,
        REFUSED_PER_MINUTE,
    );
    let max_size = context.size("max_size", raw.max_size.as_ref(), MAX_SIZE_RANGE, MAX_SIZE);
    let flag = |given: &Option<serde_spanned::Spanned<bool>>, default: bool| {
        given.as_ref().map_or(default, |given| *given.get_ref())
    };
    Some(FlowLog {
        to: to?,
        opened: flag(&raw.opened, false),
        closed: flag(&raw.closed, true),
        refused: flag(&raw.refused, true),
        rate: rate?,
        burst: burst?,
        refused_per_minute: refused_per_minute?,
        max_size: max_size?,
    })
}

fn destination(context: &mut Context<'_>, text: &Text) -> Option<FlowLogTo> {
    let written = text.get_ref();
    if let Some((_, to)) = FlowLogTo::WORDS.iter().find(|(word, _)| word == written) {
        return Some(to.clone());
    }
    if Path::new(written).is_absolute() && !written.ends_with('/') {
        return Some(FlowLogTo::File(PathBuf::from(written)));
    }
    let words = FlowLogTo::WORDS.iter().map(|(word, _)| *word);
    let meant = suggest::closest(written, words.clone());
    let mut finding = Diagnostic::error(
        "bad-flow-log",
        text.span(),
        format!("the flow log cannot go to `{written}`"),
    )
    .label(format!(
        "expected {}, or the absolute path of a file",
        suggest::alternatives(words)
    ))
    .suggest(meant);
    if meant.is_none() {
        finding = finding.help("a file is written like `/var/log/forwarder/flows.jsonl`");
    }
    context.push(finding);
    None
}

pub(super) fn geoip(context: &mut Context<'_>) -> Option<GeoIp> {
    let absent = RawGeoIp::default();
    let shape = context.shape;
    let raw = shape.raw.geoip.as_ref();
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let country = database(context, "country", raw.country.as_ref());
    let asn = database(context, "asn", raw.asn.as_ref());
    Some(GeoIp {
        country: country?,
        asn: asn?,
    })
}

fn database(context: &mut Context<'_>, key: &str, text: Option<&Text>) -> Option<Option<PathBuf>> {
    let Some(text) = text else {
        return Some(None);
    };
    let path = Path::new(text.get_ref());
    if path.is_absolute() {
        return Some(Some(path.to_owned()));
    }
    context.push(
        Diagnostic::error(
            "bad-geoip-path",
            text.span(),
            format!("`{key}` cannot be `{}`", text.get_ref()),
        )
        .label("expected the absolute path of a file")
        .help("write it like `/var/lib/GeoIP/GeoLite2-Country.mmdb`"),
    );
    None
}
