//! What a run leaves: every figure of every round, and on what machine it came about.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

use super::workload::Scale;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// When it began: seconds since 1970.
    pub began: u64,
    /// How long it took, in seconds.
    pub took: f64,
    /// On what.
    pub machine: Machine,
    /// Versions of the contenders.
    pub versions: BTreeMap<String, String>,
    /// How large everything was.
    pub scale: Scale,
    /// Rounds.
    pub rounds: usize,
    /// How the noise was handled.
    pub noise: Noise,
    /// One for each round, workload and contender.
    pub samples: Vec<Sample>,
    /// What could not be measured.
    pub failures: Vec<Failure>,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor, in its maker's words.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Memory in bytes.
    pub memory: u64,
}

/// Others on the machine, and what was done about them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Noise {
    /// The part of the machine that others may have, from 0 to 1.
    pub limit: f64,
    /// Seconds spent waiting for silence.
    pub waited: f64,
    /// Measurements that were made again.
    pub repeated: usize,
    /// Measurements that stayed above the limit.
    pub above: usize,
}

/// The figures of one contender in one round of one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The workload.
    pub workload: String,
    /// The contender.
    pub contender: String,
    /// The round, from 0.
    pub round: usize,
    /// The part of the machine that others had.
    pub noise: f64,
    /// The figures.
    pub values: BTreeMap<String, f64>,
    /// What went wrong, if a little did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A contender that could not be measured in a workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The workload.
    pub workload: String,
    /// The contender.
    pub contender: String,
    /// The round, from 0.
    pub round: usize,
    /// Why.
    pub reason: String,
}

impl Run {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| Error::Unintelligible {
            what: path.display().to_string(),
            text: error.to_string(),
        })
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Unintelligible {
            what: "the results".to_owned(),
            text: error.to_string(),
        })?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
        }
        std::fs::write(path, text + "\n").context(|| format!("writing {}", path.display()))
    }
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kilobytes = memory
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            processors: super::load::processors(),
            memory: kilobytes.unwrap_or_default() * 1024,
        }
    }
}
