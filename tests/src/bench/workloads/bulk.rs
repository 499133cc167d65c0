//! Bulk transfer, two connections at once, under three settings of the links' offloads.
//!
//! - *on*: super-packets of 64 KB all the way, as behind a modern network card;
//! - *merged*: whole segments on the wire, merged again on arrival (GRO): what is left once XDP is
//!   attached to a veth, which takes segmentation offload away from its peer;
//! - *off*: whole segments everywhere.

use std::sync::Arc;

use crate::bench::load::client::{self, Tally};
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::scene::NAME;
use crate::bench::workload::{Metric, Outcome, Stage, Workload, anyone};
use crate::error::Result;
use crate::ethtool::Offloads;
use crate::hello::Hello;

/// Whole segments on the wire, merged on arrival. Every other workload has this too, for XDP's sake.
pub(super) const MERGED: Offloads = Offloads {
    segmentation: false,
    ..Offloads::ALL
};

/// Connections at once.
const WIDTH: usize = 2;

const METRICS: &[Metric] = &[
    Metric::cost("cpu", "s/GB", "CPU a gigabyte"),
    Metric::ratio("rate", "Gbit/s", "throughput"),
    Metric::alone("failed", "", "failed"),
];

/// From node to client.
pub const DOWNLOAD: Workload = Workload {
    name: "download",
    title: "bulk download, offloads on",
    metrics: METRICS,
    offloads: Offloads::ALL,
    // With XDP on a veth there is no such thing.
    suits: |contender| anyone(contender) && contender.name != "forwarder-xdp",
    rounds: 3,
    quick: false,
    run: |stage| run(stage, Job::Download),
    ..super::connections::SMALL
};

/// From client to node.
pub const UPLOAD: Workload = Workload {
    name: "upload",
    title: "bulk upload, offloads on",
    run: |stage| run(stage, Job::Upload),
    ..DOWNLOAD
};

/// From node to client.
pub const DOWNLOAD_MERGED: Workload = Workload {
    name: "download-merged",
    title: "bulk download, segments merged on arrival only",
    offloads: MERGED,
    suits: anyone,
    quick: true,
    ..DOWNLOAD
};

/// From client to node.
pub const UPLOAD_MERGED: Workload = Workload {
    name: "upload-merged",
    title: "bulk upload, segments merged on arrival only",
    run: |stage| run(stage, Job::Upload),
    ..DOWNLOAD_MERGED
};

/// From node to client.
pub const DOWNLOAD_PLAIN: Workload = Workload {
    name: "download-off",
    title: "bulk download, offloads off",
    offloads: Offloads::NONE,
    suits: |contender| anyone(contender) && contender.name != "forwarder-xdp",
    ..DOWNLOAD
};

/// From client to node.
pub const UPLOAD_PLAIN: Workload = Workload {
    name: "upload-off",
    title: "bulk upload, offloads off",
    run: |stage| run(stage, Job::Upload),
    ..DOWNLOAD_PLAIN
};

fn run(stage: &mut Stage<'_>, job: Job) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service(RAW);
    let hello: Arc<[u8]> = job.hello(Hello::small(NAME)).into();
    let count = load::block_on(scene.client(), Place::Client, async {
        let task = |_, tally: Arc<Tally>| {
            let hello = Arc::clone(&hello);
            async move {
                let result = if job == Job::Upload {
                    client::upload(target, &hello, &tally).await
                } else {
                    client::download(target, &hello, &tally).await
                };
                if let Err(error) = result {
                    tally.failure(&error);
                }
            }
        };
        Ok(client::load(WIDTH, duration, task).await)
    })?;
    super::sound(&count)?;
    let gigabytes = count.done as f64 / 1e9;
    Ok(Outcome::new(
        &count.usage,
        vec![
            ("cpu", count.usage.busy.as_secs_f64() / gigabytes),
            ("rate", gigabytes * 8.0 / count.usage.wall.as_secs_f64()),
            ("failed", count.failed as f64),
        ],
    ))
}
