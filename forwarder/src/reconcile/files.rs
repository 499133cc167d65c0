//! The configuration files changed: they are put to use, unless they have errors.

use std::time::Duration;

use tracing::{info, warn};

use super::daemon::Daemon;
use super::file_watch::{AGAIN, QUIET};
use crate::config::Sources;
use crate::instance::error::chain;

impl Daemon {
    /// Begins, goes on or ceases to follow the files, as the configuration says. They were read before: what
    /// changed since, and was told to nobody or to the watch that ends here, is found by one more look.
    pub(super) fn follow_files(&mut self) {
        self.follow_from(QUIET);
    }

    fn follow_from(&mut self, first: Duration) {
        let main = self.sources.main().path.clone();
        let main = self.config.entrance.watch.then_some(main.as_path());
        self.files.follow(main, first);
    }

    /// Looks at the files and puts them to use if they say something new.
    pub(super) async fn files_changed(&mut self) {
        // Before reading, so that no change falls between.
        self.follow_from(AGAIN);
        let sources = match Sources::read(&self.sources.main().path) {
            Ok(sources) => sources,
            Err(error) => {
                self.files.unreadable = self.files.unreadable.saturating_add(1);
                match self.files.unreadable {
                    1 => self.files.look_soon(),
                    2 => warn!(
                        "{}; the running configuration stays in use until the files can be read",
                        chain(&error)
                    ),
                    _ => {}
                }
                return;
            }
        };
        if std::mem::take(&mut self.files.unreadable) > 1 {
            info!("the configuration files can be read again");
        }
        if sources == self.sources {
            if self.refused.take().is_some() {
                info!("the configuration files say what is in use again");
            }
            return;
        }
        if self.refused.as_ref() == Some(&sources) {
            return;
        }
        info!("the configuration files have changed");
        let answer = self.reload_from(sources).await;
        self.log_refusal(answer);
    }
}
