//! What a verb that did not work leaves behind: a sentence for a person, or with `--json` an object.

use std::io::{Write, stderr, stdout};

use clap::ArgMatches;
use forwarder::control::client::ClientError;
use serde_json::{Value, json};

use super::output;

/// Whether `--json` was given to the subcommand.
pub fn wants_json(matches: &ArgMatches) -> bool {
    let here = matches.try_get_one::<bool>("json");
    let here = here.ok().flatten().is_some_and(|json| *json);
    here || matches
        .subcommand()
        .is_some_and(|(_, below)| wants_json(below))
}

/// Says what went wrong: on standard error, and with `json` as an object on standard output as well.
pub fn show(error: &anyhow::Error, json: bool) {
    // Nobody is left to be told about a pipe that is closed.
    let _ = writeln!(stderr(), "forwarder: {error:#}");
    if json {
        let _ = output::written(writeln!(stdout(), "{:#}", to_json(error)));
    }
}

/// The same as the control socket answers, see docs/control.md; without a status if no daemon said so.
fn to_json(error: &anyhow::Error) -> Value {
    let own = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(problem)) => {
            let mut own = serde_json::to_value(problem).unwrap_or_default();
            // The report says the same to a program.
            own.as_object_mut().map(|own| own.remove("rendered"));
            own
        }
        Some(own) => match own.fix() {
            Some(fix) => json!({ "message": format!("{error:#}"), "fix": fix }),
            None => json!({ "message": format!("{error:#}") }),
        },
        None => json!({ "message": format!("{error:#}") }),
    };
    json!({ "error": own })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::http::StatusCode;
    use forwarder::control::problem::Problem;

    use super::*;

    #[test]
    fn programs_are_told_what_people_are_told() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "there is no pool `x`").fix("see ls");
        let error = anyhow::Error::from(ClientError::Refused(Box::new(problem)));
        let expected = json!({ "error": { "status": 404, "message": "there is no pool `x`", "fix": "see ls" } });
        assert_eq!(to_json(&error), expected);
        let path = PathBuf::from("/run/x.sock");
        let json = to_json(&ClientError::Absent { path }.into());
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains("/run/x.sock"), "{message}");
        assert!(
            json["error"]["fix"]
                .as_str()
                .unwrap()
                .contains("forwarder run")
        );
        assert_eq!(
            to_json(&anyhow::anyhow!("no").context("why")),
            json!({ "error": { "message": "why: no" } })
        );
    }
}
