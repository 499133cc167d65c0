//! The benchmark works: one tiny round. What it measures here means nothing, and nothing is claimed of it.

use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::bench::contender::{CONTROL, Contender, YARDSTICK};
use forwarder_tests::bench::plan::{self, Plan};
use forwarder_tests::bench::report::table;
use forwarder_tests::bench::workload::{self, Scale};
use forwarder_tests::lab::TunnelKind;

const CONTENDERS: [&str; 3] = [CONTROL, YARDSTICK, "forwarder"];
const WORKLOADS: [&str; 3] = ["connections", "tls-resumed", "download-merged"];

#[test]
fn a_tiny_round_leaves_a_figure_for_everybody() -> Result<()> {
    let run = plan::run(&Plan {
        contenders: CONTENDERS
            .into_iter()
            .filter_map(Contender::named)
            .collect(),
        workloads: WORKLOADS.into_iter().filter_map(workload::named).collect(),
        rounds: 1,
        chosen: false,
        scale: Scale {
            seconds: 0.3,
            flows: 100,
            names: 100,
        },
        tunnel: TunnelKind::Ethernet,
        noise_limit: 1.0,
        patience: Duration::ZERO,
        tries: 1,
    })?;
    assert!(run.failures.is_empty(), "{:?}", run.failures);
    for workload in WORKLOADS {
        for contender in CONTENDERS {
            let mut samples = run.samples.iter();
            let sample = samples.find(|it| it.workload == workload && it.contender == contender);
            let values = &sample.expect("a sample for everybody").values;
            assert!(values["rate"] > 0.0, "{contender} did nothing: {values:?}");
            assert!(values["cpu"] > 0.0, "{contender} cost nothing: {values:?}");
        }
    }
    let text = table::all(&run);
    assert!(text.contains("| forwarder "), "{text}");
    Ok(())
}
