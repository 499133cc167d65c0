//! Edits of a small configuration.

use std::path::Path;

use super::*;

const TEXT: &str = "[entrance]\npublic=['eth0']\ntunnels=['wg0']\n[[listener]]\nname='https'\nprotocol='tls'\nport=443\n[[listener]]\nname='alt'\nprotocol='tls'\nport=8443\n[[pool]]\nclient_address='transparent'\nname='k3s'\nnodes=['10.0.0.2:443',{name='thinkpad',address='10.0.0.3:443'}]\n[[pool]]\nclient_address='transparent'\nname='other'\nnodes=['10.0.0.3:8443']\n[[route]]\nnames=['a.example.org','*.b.example.org']\npool='k3s'\nlisteners=['https']\n";

fn config() -> Config {
    crate::config::parse(Path::new("t"), TEXT).config.unwrap()
}

fn add(names: &[&str], pool: &str, listeners: Option<&[&str]>) -> Edit {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Edit::AddRoute {
        names: owned(names),
        pool: pool.to_owned(),
        listeners: listeners.map(owned),
    }
}

#[test]
fn a_route_is_added_once() {
    let edit = add(&["C.example.org"], "other", None);
    let new = edit.apply(&config()).unwrap();
    let route = new.routes.last().unwrap();
    assert_eq!((route.pool, route.listeners.as_slice()), (1, &[0, 1][..]));
    assert_eq!(route.names[0].to_string(), "c.example.org");
    let error = edit.apply(&new).unwrap_err();
    assert!(matches!(&error, EditError::Listed { pool, .. } if pool == "other"));
    assert!(error.fix().unwrap().contains("route rm c.example.org"));
    // On another listener the name is free.
    assert!(
        add(&["a.example.org"], "other", Some(&["alt"]))
            .apply(&config())
            .is_ok()
    );
    assert!(
        add(&["a.example.org"], "other", None)
            .apply(&config())
            .is_err()
    );
}

#[test]
fn what_is_wrong_is_said_with_a_way_out() {
    for (edit, says) in [
        (add(&["x.example.org"], "k3x", None), "did you mean `k3s`"),
        (add(&["x y"], "k3s", None), "www.example.org"),
        (add(&[], "k3s", None), "at least one name"),
        (
            add(&["x.org"], "k3s", Some(&["http"])),
            "did you mean `https`",
        ),
        (
            Edit::RemoveNames {
                names: vec![String::from("aa.example.org")],
            },
            "did you mean `a.example.org`",
        ),
        (
            Edit::State {
                node: String::from("10.9.9.9"),
                state: NodeState::Drain,
            },
            "node ls",
        ),
    ] {
        let error = edit.apply(&config()).unwrap_err();
        let fix = error.fix().unwrap_or_default();
        assert!(fix.contains(says), "{error}: {fix}");
    }
}

#[test]
fn the_last_name_takes_its_route_along() {
    let one = Edit::RemoveNames {
        names: vec![String::from("a.example.org")],
    };
    let new = one.apply(&config()).unwrap();
    assert_eq!(new.routes[0].names.len(), 1);
    let rest = Edit::RemoveNames {
        names: vec![String::from("*.b.example.org")],
    };
    assert!(rest.apply(&new).unwrap().routes.is_empty());
}

#[test]
fn a_node_is_meant_by_name_address_or_both() {
    let touched = |selector: &str| {
        let edit = Edit::State {
            node: selector.to_owned(),
            state: NodeState::Drain,
        };
        let new = edit.apply(&config()).unwrap();
        let nodes = new.pools.iter().flat_map(|pool| &pool.nodes);
        nodes.filter(|node| node.share() == 0).count()
    };
    assert_eq!(touched("thinkpad"), 1);
    assert_eq!(touched("10.0.0.3"), 2);
    assert_eq!(touched("10.0.0.3:8443"), 1);
}

#[test]
fn filters_are_held_against_what_there_is() {
    let config = config();
    for known in ["thinkpad", "10.0.0.3", "10.0.0.3:8443"] {
        assert_eq!(
            is_known(&config, Some(known), Some("A.example.org")),
            Ok(())
        );
    }
    assert_eq!(is_known(&config, None, None), Ok(()));
    let fix = |node, name| is_known(&config, node, name).unwrap_err().fix().unwrap();
    assert!(fix(Some("thinkpda"), None).contains("`thinkpad`"));
    assert!(fix(None, Some("*.c.example.org")).contains("`*.b.example.org`"));
    assert!(fix(Some("10.9.9.9"), None).contains("node ls"));
}

#[test]
fn a_weight_may_be_of_one_pool() {
    let weight = |pool: Option<&str>, weight| Edit::Weight {
        node: String::from("10.0.0.3"),
        pool: pool.map(str::to_owned),
        weight,
    };
    let new = weight(Some("other"), 0).apply(&config()).unwrap();
    assert_eq!(
        (new.pools[0].nodes[1].weight, new.pools[1].nodes[0].weight),
        (1, 0)
    );
    assert_eq!(
        weight(None, 1_001).apply(&config()).unwrap_err(),
        EditError::Weight
    );
}
