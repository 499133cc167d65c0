//! What the demonstration tells: for people as it happens, or as JSON in the end.

use std::io::IsTerminal;
use std::time::Duration;

use forwarder_tests::command::find;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::scene::Scene;

/// One part of the demonstration.
#[derive(Debug, Serialize)]
struct Step {
    title: String,
    ok: bool,
    checks: Vec<Check>,
}

/// Something that was run, and what came of it.
#[derive(Debug, Serialize)]
struct Check {
    ran: String,
    saw: String,
    ok: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    figures: Map<String, Value>,
}

/// Everything told so far.
#[derive(Debug)]
pub struct Report {
    json: bool,
    color: bool,
    steps: Vec<Step>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        let color =
            !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            color,
            steps: Vec::new(),
        }
    }

    /// Begins a part.
    pub fn step(&mut self, title: &str) {
        let number = self.steps.len() + 1;
        self.say(&format!(
            "\n{}",
            self.painted("1", &format!("{number}  {title}"))
        ));
        self.steps.push(Step {
            title: title.to_owned(),
            ok: true,
            checks: Vec::new(),
        });
    }

    /// Tells of something that was run: what was seen, and whether that is right.
    pub fn check(&mut self, ran: &str, saw: &str, ok: bool) {
        self.check_with(ran, saw, ok, []);
    }

    /// The same, with figures for the JSON.
    pub fn check_with<const N: usize>(
        &mut self,
        ran: &str,
        saw: &str,
        ok: bool,
        figures: [(&str, Value); N],
    ) {
        let mark = if ok {
            self.painted("32", "✓")
        } else {
            self.painted("31", "✗")
        };
        self.say(&format!(
            "   {}\n   {mark} {saw}",
            self.painted("2", &format!("$ {ran}"))
        ));
        let figures = figures
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if let Some(step) = self.steps.last_mut() {
            step.ok &= ok;
            step.checks.push(Check {
                ran: ran.to_owned(),
                saw: saw.to_owned(),
                ok,
                figures,
            });
        }
    }

    /// A remark.
    pub fn note(&self, text: &str) {
        self.say(&format!("   {text}"));
    }

    /// The forwarder's own numbers.
    pub fn counters(&self, status: &str) {
        self.say(&format!(
            "\n{}",
            self.painted("1", "What the forwarder counted (`forwarder status`)")
        ));
        for line in status.lines() {
            self.say(&format!("   {line}"));
        }
    }

    /// The outcome, how to look around, and how to do this on a real machine.
    pub fn farewell(&self, scene: &Scene, took: Duration, keep: bool) {
        let checks: usize = self.steps.iter().map(|step| step.checks.len()).sum();
        let failed = self
            .steps
            .iter()
            .flat_map(|step| &step.checks)
            .filter(|check| !check.ok)
            .count();
        let outcome = if failed == 0 {
            self.painted("32", &format!("all {checks} checks passed"))
        } else {
            self.painted("31", &format!("{failed} of {checks} checks FAILED"))
        };
        self.say(&format!("\n{outcome}, in {:.0} s", took.as_secs_f64()));
        if keep {
            let name = scene.lab.name();
            let curl = find("curl")
                .map(|path| path.display().to_string())
                .unwrap_or_else(|_| "curl".to_owned());
            let this = std::env::current_exe()
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            self.say(&format!(
                "\nThe lab stays up.\n   \
                 its machines:       ip netns list | grep {name}\n   \
                 be the client:      ip netns exec {name}-client0 bash\n   \
                 and there:          {curl} --cacert {}/authority.pem --resolve www.example.org:443:{} \
                 https://www.example.org/whoami\n   \
                 be the entrance:    ip netns exec {name}-entrance bash\n   \
                 the configuration:  {}\n   \
                 remove all of it:   {this} --remove {name}",
                scene.lab.folder().display(),
                scene.lab.public(forwarder_tests::lab::Family::V4),
                scene.forwarder.config().display(),
            ));
        }
        self.say(
            "\nOn a real VPS: have a tunnel to your nodes (WireGuard or Tailscale), write\n   \
             /etc/forwarder/forwarder.toml with your interfaces, nodes and names, then\n   \
             `forwarder check` and `forwarder run`. README.md goes through it step by step;\n   \
             docs/config.md has every key.",
        );
    }

    pub fn all_good(&self) -> bool {
        self.steps.iter().all(|step| step.ok)
    }

    pub fn into_json(self) -> Value {
        serde_json::to_value(self.steps).unwrap_or_default()
    }

    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
