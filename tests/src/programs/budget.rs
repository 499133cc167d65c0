//! What the verifier made of each program: instructions it walked, and bytes it left.
//!
//! The kernel gives up at 1,000,000 instructions (`BPF_COMPLEXITY_LIMIT_INSNS`), and older kernels walk
//! more of them than newer ones: a program must stay well below.

use std::fmt;

use super::kernel::{Kernel, KernelError};

/// The most instructions that a program may cost here.
pub const LIMIT: u32 = 800_000;

/// The cost of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Its name.
    pub program: String,
    /// Instructions the verifier walked.
    pub verified: u32,
    /// Bytes of the program after translation.
    pub translated: u32,
}

/// The costs of all programs, the dearest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs(pub Vec<Cost>);

impl Costs {
    /// Asks the kernel. It tells verified instructions since Linux 5.16.
    pub fn of(kernel: &Kernel) -> Result<Self, KernelError> {
        let mut costs = Vec::new();
        for (name, info) in kernel.programs() {
            let info = info.map_err(|source| KernelError::Program {
                name: name.to_owned(),
                source,
            })?;
            costs.push(Cost {
                program: name.to_owned(),
                verified: info.verified_instruction_count().unwrap_or_default(),
                translated: info.size_translated().unwrap_or_default(),
            });
        }
        costs.sort_by_key(|cost| std::cmp::Reverse(cost.verified));
        Ok(Self(costs))
    }

    /// Programs above [`LIMIT`].
    pub fn excessive(&self) -> impl Iterator<Item = &Cost> {
        self.0.iter().filter(|cost| cost.verified > LIMIT)
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>10} {:>10}", "program", "verified", "bytes")?;
        for cost in &self.0 {
            writeln!(
                f,
                "{:<20} {:>10} {:>10}",
                cost.program, cost.verified, cost.translated
            )?;
        }
        Ok(())
    }
}
