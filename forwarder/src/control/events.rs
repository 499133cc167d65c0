//! What happens to flows, as it happens: server-sent events.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::parameters::Parameters;
use super::problem::Problem;

use crate::config::model::Pattern;
use crate::dataplane::flows::open::Clients;
use crate::reconcile::Handle;
use crate::telemetry::counters::Tally;
use crate::telemetry::flow_event::FlowEvent;

/// The parameters of `GET /v1/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only refused connections.
    #[serde(default)]
    refused: bool,
    /// Only of these clients, as [`Clients`] are written.
    client: Option<String>,
    /// Only of this name; a wildcard means the names that it covers, too.
    name: Option<String>,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
struct Wanted {
    refused: bool,
    client: Option<Clients>,
    name: Option<String>,
    covered: Option<Pattern>,
}

impl Wanted {
    fn new(filter: Filter) -> Result<Self, Problem> {
        let client = filter.client.as_deref().map(Clients::from_str);
        let client = client.transpose();
        let client = client.map_err(|error| Problem::bad_request(error.to_string()))?;
        let pattern = filter.name.as_deref().map(Pattern::parse);
        Ok(Self {
            refused: filter.refused,
            client,
            // What was sent need not be a name that can be listed.
            covered: pattern.and_then(Result::ok),
            name: filter.name,
        })
    }

    fn wants(&self, told: &FlowEvent) -> bool {
        let name = |wanted: &String| {
            let covers = |pattern: &Pattern| pattern.matches(&told.name);
            told.name.eq_ignore_ascii_case(wanted) || self.covered.as_ref().is_some_and(covers)
        };
        (!self.refused || told.event == "refused")
            && self.client.is_none_or(|own| own.hold(told.client))
            && self.name.as_ref().is_none_or(name)
    }
}

/// `GET /v1/events`
pub async fn follow(
    State(shared): State<Handle>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let wanted = Wanted::new(filter)?;
    let receiver = shared.events.subscribe();
    // At once, so that whoever follows knows from when on nothing is missed.
    let greeting = sse::Event::default().comment("following");
    let state = (receiver, wanted, shared.tally.clone());
    let events = futures_util::stream::unfold(state, |(mut receiver, wanted, tally)| async {
        let event = next(&mut receiver, &wanted, &tally).await?;
        Some((Ok(event), (receiver, wanted, tally)))
    });
    let stream = futures_util::stream::once(async { Ok(greeting) }).chain(events);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

async fn next(
    receiver: &mut broadcast::Receiver<FlowEvent>,
    wanted: &Wanted,
    tally: &Arc<Tally>,
) -> Option<sse::Event> {
    loop {
        match receiver.recv().await {
            Ok(told) if wanted.wants(&told) => {
                let event = sse::Event::default().event(&told.event);
                return event.json_data(&told).ok();
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                tally.missed_by_followers.add(missed);
                let data = serde_json::json!({ "event": "missed", "count": missed });
                return Some(sse::Event::default().event("missed").data(data.to_string()));
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: &str, client: &str, name: &str) -> FlowEvent {
        FlowEvent {
            event: event.to_owned(),
            time_ms: 0,
            client: client.parse().unwrap(),
            local: None,
            name: name.to_owned(),
            listener: None,
            pool: None,
            node: None,
            reason: None,
            id: String::new(),
            up_bytes: 0,
            down_bytes: 0,
            duration: 0,
        }
    }

    #[tokio::test]
    async fn what_a_slow_follower_missed_is_told_and_counted() {
        let (sender, mut receiver) = broadcast::channel(4);
        for _ in 0..10 {
            sender
                .send(told("closed", "198.51.100.4:50000", ""))
                .unwrap();
        }
        let tally = Arc::new(Tally::default());
        let wanted = Wanted::default();
        let first = next(&mut receiver, &wanted, &tally).await;
        assert!(format!("{first:?}").contains("missed"), "{first:?}");
        assert_eq!(tally.missed_by_followers.value(), 6);
        let second = next(&mut receiver, &wanted, &tally).await;
        assert!(format!("{second:?}").contains("closed"), "{second:?}");
        assert_eq!(tally.missed_by_followers.value(), 6);
    }

    fn wants(refused: bool, client: &str, name: &str, told: &FlowEvent) -> bool {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = Filter {
            refused,
            client: text(client),
            name: text(name),
        };
        Wanted::new(filter).unwrap().wants(told)
    }

    #[test]
    fn filters_hold_together() {
        let six = told("refused", "[2001:db8::7]:50000", "Shop.Apps.example.org");
        assert!(wants(true, "2001:db8::/32", "shop.apps.example.org", &six));
        assert!(wants(
            false,
            "[2001:db8::7]:50000",
            "*.apps.example.org",
            &six
        ));
        assert!(!wants(true, "2001:db8::8", "", &six));
        assert!(!wants(true, "", "*.other.example.org", &six));
        let four = told("opened", "198.51.100.4:50000", "*.apps.example.org");
        assert!(!wants(true, "", "", &four), "not refused");
        assert!(
            wants(false, "198.51.100.0/24", "*.apps.example.org", &four),
            "as listed"
        );
        let nothing = told("refused", "198.51.100.4:50000", "");
        assert!(!wants(true, "", "*.example.org", &nothing));
    }

    #[test]
    fn a_filter_that_means_nobody_is_an_error() {
        let filter = Filter {
            client: Some(String::from("198.51.100")),
            ..Filter::default()
        };
        assert!(
            Wanted::new(filter)
                .unwrap_err()
                .message
                .contains("198.51.100")
        );
    }
}
