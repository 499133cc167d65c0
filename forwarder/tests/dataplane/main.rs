//! The kernel side for real: programs loaded, maps written, flows swept, everything taken over and removed.

mod lifecycle;
mod metrics;
mod sandbox;
mod swapping;
mod sweeping;
mod upgrading;

use std::path::Path;

use forwarder::config::{self, Config};
use forwarder::dataplane::bpf::object::OBJECT;
use forwarder::dataplane::bpf::pins::Pins;
use forwarder::dataplane::{Dataplane, DataplaneError, Origin, plan};

const TEXT: &str = r#"
[entrance]
public = ["pub0"]
tunnels = ["tun0"]
max_flows = 256
hello_buffers = 16
source_ports = "2000-2099"
[[listener]]
name = "https"
protocol = "tls"
port = 443
[[pool]]
name = "k3s"
client_address = "proxy-v2"
nodes = ["10.0.0.2:443", "10.0.0.3:443"]
[[route]]
names = ["www.example.org", "*.apps.example.org"]
pool = "k3s"
"#;

fn config(text: &str) -> Config {
    let outcome = config::parse(Path::new("test.toml"), text);
    outcome
        .config
        .unwrap_or_else(|| panic!("{}", outcome.report.render(false)))
}

fn open(directory: &Path, text: &str) -> Result<(Dataplane, Origin), DataplaneError> {
    Dataplane::open(
        OBJECT,
        &config(text),
        pins(directory),
        &directory.with_extension("json"),
    )
}

fn pins(directory: &Path) -> Pins {
    Pins::new(&directory.join("forwarder"))
}

/// Surveys, writes and attaches, as the daemon does.
fn follow(dataplane: &mut Dataplane, text: &str) -> forwarder::dataplane::write::Changes {
    let config = config(text);
    let destinations = plan::destinations(&config, dataplane.registry());
    let network = sandbox::survey(&destinations);
    let changes = dataplane.apply(&config, &network).unwrap();
    dataplane.attach(&config, &network).unwrap();
    changes
}
