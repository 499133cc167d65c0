//! The configurations in the quick starts and recipes are valid.

use std::fs;
use std::path::Path;

use forwarder::config;

/// What a recipe that shows only pools and routes leaves out.
const REST: &str = "[entrance]\npublic = [\"eth0\"]\ntunnels = [\"wg0\"]\n\n[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n\n";

fn recipes(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block.to_owned())
        .collect()
}

#[test]
fn every_shown_configuration_is_valid() {
    for file in ["quickstart-tailscale.md", "k3s.md"] {
        let recipes = recipes(file);
        assert!(!recipes.is_empty(), "{file}");
        for recipe in recipes {
            let text = match recipe.contains("[entrance]") {
                true => recipe,
                false => format!("{REST}{recipe}"),
            };
            let outcome = config::parse(Path::new(file), text.as_str());
            assert!(
                outcome.report.errors() + outcome.report.warnings() == 0,
                "{}",
                outcome.report.render(false)
            );
        }
    }
}
