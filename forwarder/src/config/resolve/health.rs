//! `health` of a pool.

use std::time::Duration;

use forwarder_common::name::PatternKind;

use super::context::Context;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Check, Checks, ClientAddress, Pattern, ProxyCommand};
use crate::config::raw::{List, Number, RawHealth, RawPool, RawProxy, Text};

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;
/// Most successes or failures in a row.
const ROW_MAX: u32 = 100;

pub(super) fn resolve(
    context: &mut Context<'_>,
    pool: &RawPool,
    client_address: Option<ClientAddress>,
) -> Option<Checks> {
    let absent = RawHealth::default();
    let raw = pool.health.as_ref().map_or(&absent, |raw| raw.get_ref());
    // Whoever writes `health = {}` wants checks; who does not write it may have nodes that log each one.
    let default = if pool.health.is_some() {
        Check::Tcp
    } else {
        Check::None
    };
    let check = context.keyword("check", raw.check.as_ref(), default);
    let server_name = match &raw.server_name {
        Some(text) => server_name(context, text).map(Some),
        None => Some(None),
    };
    let path = match &raw.path {
        Some(text) => path(context, text),
        None => Some(String::from("/")),
    };
    let expect = expect(context, &raw.expect);
    let (shortest, day) = (Duration::from_millis(100), Duration::from_secs(86_400));
    let interval = context.duration("interval", raw.interval.as_ref(), shortest..=day, INTERVAL);
    let minute = Duration::from_secs(60);
    let timeout = context.duration("timeout", raw.timeout.as_ref(), shortest..=minute, TIMEOUT);
    let rise = context.number("rise", raw.rise.as_ref(), 1..=ROW_MAX, RISE);
    let fall = context.number("fall", raw.fall.as_ref(), 1..=ROW_MAX, FALL);
    let flag = |given: &Option<serde_spanned::Spanned<bool>>, default: bool| {
        given.as_ref().map_or(default, |given| *given.get_ref())
    };
    let check = check?;
    // A plain `tcp` check ends before the server could read anything.
    let speaks = check.is_tls() || check.is_http();
    let usual = client_address == Some(ClientAddress::ProxyV2) && speaks;
    let proxy = proxy(context, raw, usual.then_some(ProxyCommand::Local));
    without_effect(context, raw, check);
    refuse_without_check(context, pool, check);
    Some(Checks {
        check,
        server_name: server_name?,
        path: path?,
        expect: expect?,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        proxy: proxy?,
        verify: flag(&raw.verify, false),
        passive: flag(&raw.passive, true),
    })
}

fn proxy(
    context: &mut Context<'_>,
    raw: &RawHealth,
    default: Option<ProxyCommand>,
) -> Option<Option<ProxyCommand>> {
    let Some(given) = &raw.proxy else {
        return Some(default);
    };
    match given.get_ref() {
        RawProxy::Flag(true) => Some(Some(ProxyCommand::Local)),
        RawProxy::Flag(false) => Some(None),
        RawProxy::Word(word) => {
            let text = Text::new(given.span(), word.clone());
            let command = context.keyword("proxy", Some(&text), ProxyCommand::Local);
            command.map(Some)
        }
    }
}

fn server_name(context: &mut Context<'_>, text: &Text) -> Option<String> {
    let label = match Pattern::parse(text.get_ref()) {
        Ok(pattern) if pattern.kind() == PatternKind::Exact => {
            return Some(pattern.name().to_owned());
        }
        Ok(_) => String::from("a check asks for one name, not for a wildcard"),
        Err(error) => error.to_string(),
    };
    context.push(
        Diagnostic::error(
            "bad-server-name",
            text.span(),
            format!("`{}` is not a name to check with", text.get_ref()),
        )
        .label(label)
        .help("write a name that the node serves, like `www.example.org`"),
    );
    None
}

fn path(context: &mut Context<'_>, text: &Text) -> Option<String> {
    let path = text.get_ref();
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(path.clone());
    }
    context.push(
        Diagnostic::error(
            "bad-path",
            text.span(),
            format!("`path` cannot be `{path}`"),
        )
        .label("expected `/` and then ASCII characters without spaces")
        .help("write it as it stands in a request, like `/healthz?full=1`"),
    );
    None
}

fn expect(context: &mut Context<'_>, list: &List<Number>) -> Option<Vec<u16>> {
    let Some(list) = list else {
        return Some(Vec::new());
    };
    if list.get_ref().is_empty() {
        context.push(
            Diagnostic::error("empty-list", list.span(), "`expect` is empty")
                .label("every answer would be a failure")
                .help("leave `expect` out for the codes 200 to 399"),
        );
        return None;
    }
    let codes = list.get_ref().iter();
    let codes: Vec<_> = codes
        .map(|code| context.number("expect", Some(code), 100..=599, 200))
        .collect();
    let codes: Option<Vec<_>> = codes.into_iter().collect();
    codes?
        .into_iter()
        .map(|code| u16::try_from(code).ok())
        .collect()
}

/// Warns of keys that the chosen check does not look at.
fn without_effect(context: &mut Context<'_>, raw: &RawHealth, check: Check) {
    let text = |text: &Option<Text>| text.as_ref().map(Text::span);
    let number = |number: &Option<Number>| number.as_ref().map(Number::span);
    let flag = |flag: &Option<serde_spanned::Spanned<bool>>| flag.as_ref().map(|own| own.span());
    let (tls, http, any) = (check.is_tls(), check.is_http(), check != Check::None);
    let keys: [(&str, Option<Span>, bool); 8] = [
        ("server_name", text(&raw.server_name), tls || http),
        ("path", text(&raw.path), http),
        ("expect", raw.expect.as_ref().map(|own| own.span()), http),
        ("verify", flag(&raw.verify), tls),
        ("interval", text(&raw.interval), any),
        ("timeout", text(&raw.timeout), any),
        ("rise", number(&raw.rise), any),
        ("proxy", raw.proxy.as_ref().map(|own| own.span()), any),
    ];
    for (key, span, used) in keys {
        if let Some(span) = span.filter(|_| !used) {
            context.push(
                Diagnostic::warning("no-effect", span, format!("`{key}` has no effect here"))
                    .label(format!("this check is `{}`", word(check))),
            );
        }
    }
}

/// Only checks tell that no node is left; connections that fail may be one client's.
fn refuse_without_check(context: &mut Context<'_>, pool: &RawPool, check: Check) {
    let Some(text) = &pool.when_empty else { return };
    if check == Check::None && text.get_ref() == "refuse" {
        context.push(
            Diagnostic::warning(
                "no-effect",
                text.span(),
                "`when_empty = \"refuse\"` has no effect here",
            )
            .label("nothing checks the nodes of this pool")
            .help("add `health = { check = \"tcp\" }`"),
        );
    }
}

fn word(check: Check) -> &'static str {
    use crate::config::model::Keyword;
    let known = Check::WORDS.iter().find(|(_, own)| *own == check);
    known.map_or("", |(word, _)| *word)
}
