//! States and weights of nodes outlast reloads, the watch, and restarts; until somebody, or the file, says otherwise.

use forwarder_tests::Result;
use forwarder_tests::command::run;
use forwarder_tests::forwarder::{Forwarder, entrance_section};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::PATIENCE;
use forwarder_tests::site::{LISTENERS, route};
use serde_json::Value;

fn config(lab: &Lab, name: &str, weight: u32, watch: bool) -> String {
    let address = lab.nodes[0].socket(Family::V4, 443);
    let other = lab.nodes[1].socket(Family::V4, 443);
    format!(
        "{}watch = {watch}\n{LISTENERS}\n[[pool]]\nname = \"web\"\nclient_address = \"masquerade\"\nnodes = [{{ name = \"thinkpad\", address = \"{address}\", weight = {weight} }}, \"{other}\"]\n\n{}",
        entrance_section(lab),
        route(&[name], "web")
    )
}

/// State and weight of the node.
fn node(forwarder: &Forwarder<'_>) -> Result<(String, u64)> {
    let text = run(forwarder.command()?.args(["node", "ls", "--json"]))?;
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let nodes = all["nodes"].as_array().expect("a list");
    let own = nodes.iter().find(|own| own["name"] == "thinkpad");
    let own = own.unwrap_or_else(|| panic!("{all:#}"));
    let state = own["state"].as_str().expect("a word").to_owned();
    Ok((state, own["weight"].as_u64().expect("a number")))
}

#[test]
fn what_an_operator_set_outlasts_reloads_the_watch_and_restarts() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 2).build()?;
    let mut forwarder = Forwarder::start(&lab, &config(&lab, "a.example.org", 2, false))?;
    let verb = |forwarder: &Forwarder<'_>, words: &[&str]| run(forwarder.command()?.args(words));
    let said = verb(&forwarder, &["node", "maint", "thinkpad"])?;
    assert!(said.contains("also after reloads and restarts"), "{said}");
    verb(&forwarder, &["node", "weight", "thinkpad", "7"])?;
    let set = (String::from("maint"), 7);
    assert_eq!(node(&forwarder)?, set);

    let said = verb(&forwarder, &["reload"])?;
    assert!(
        said.contains("goes on as set at run time: node maint thinkpad"),
        "{said}"
    );
    assert_eq!(
        node(&forwarder)?,
        set,
        "after a reload that changes nothing"
    );
    forwarder.write_config(&config(&lab, "b.example.org", 2, true))?;
    verb(&forwarder, &["reload"])?;
    assert_eq!(node(&forwarder)?, set, "after a reload");
    forwarder.write_config(&config(&lab, "c.example.org", 2, true))?;
    wait_until("the watch", PATIENCE, || {
        forwarder.log().contains("c.example.org")
    })?;
    assert_eq!(node(&forwarder)?, set, "after the watch has reloaded");
    forwarder.kill()?;
    forwarder.run()?;
    assert_eq!(node(&forwarder)?, set, "after a daemon that was killed");
    forwarder.stop();
    forwarder.write_config(&config(&lab, "d.example.org", 2, false))?;
    forwarder.run()?;
    assert_eq!(node(&forwarder)?, set, "after a restart with other files");
    let said = forwarder.status_text()?;
    assert!(
        said.contains("set at run time, until set anew: node maint thinkpad"),
        "{said}"
    );

    // The file says another weight now, and nothing of states.
    forwarder.write_config(&config(&lab, "d.example.org", 3, false))?;
    verb(&forwarder, &["reload"])?;
    assert_eq!(node(&forwarder)?, (String::from("maint"), 3));
    verb(&forwarder, &["node", "ready", "thinkpad"])?;
    assert_eq!(forwarder.status()?["edits"], Value::Array(Vec::new()));
    verb(&forwarder, &["reload"])?;
    assert_eq!(node(&forwarder)?, (String::from("ready"), 3));
    Ok(())
}
