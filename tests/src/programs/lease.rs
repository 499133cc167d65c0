//! Loaded programs, lent to one bench after the other: to verify them takes seconds, to empty their maps milliseconds.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::kernel::{Kernel, KernelError};

/// The sizes of maps that differ from their defaults, by their names.
pub type Sizes = Vec<(&'static str, u32)>;

/// Programs that nobody uses now, under the sizes of their maps. What their last user left is still in them.
static IDLE: Mutex<Vec<(Sizes, Kernel)>> = Mutex::new(Vec::new());

/// Programs with empty maps, which others may have used before.
pub struct Lease {
    sizes: Sizes,
    // There until this is dropped.
    kernel: Option<Kernel>,
}

impl Lease {
    /// Takes programs with maps of these sizes, or loads them where all are in use.
    pub fn take(sizes: &[(&'static str, u32)]) -> Result<Self, KernelError> {
        let idle = {
            let mut all = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            let at = all.iter().position(|(own, _)| own == sizes);
            at.map(|at| all.swap_remove(at).1)
        };
        let kernel = match idle {
            Some(kernel) => {
                kernel.empty_maps()?;
                kernel
            }
            None => Kernel::load(sizes)?,
        };
        Ok(Self {
            sizes: sizes.to_vec(),
            kernel: Some(kernel),
        })
    }
}

impl Deref for Lease {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        self.kernel.as_ref().expect("programs until the end")
    }
}

impl Drop for Lease {
    /// After a test that failed they are not used again: nobody knows how it left them.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(kernel) = self.kernel.take() {
            let mut all = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((std::mem::take(&mut self.sizes), kernel));
        }
    }
}
