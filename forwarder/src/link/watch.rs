//! Says when interfaces, addresses, routes or filters changed, once per burst.
//!
//! Making an interface anew is a burst of a dozen messages; only what stands at its end matters, and a
//! new survey tells that. Hence no message is interpreted here.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use tokio::time::{Instant, timeout_at};

/// The end of a burst: this long without a further message.
const QUIET: Duration = Duration::from_millis(200);
/// A burst is cut here, so that a machine whose routes never rest is still followed.
const LONGEST: Duration = Duration::from_secs(1);

/// A subscription to changes.
pub struct Watch {
    messages: BoxStream<'static, ()>,
    burst: Option<Burst>,
}

/// A burst that is under way.
#[derive(Clone, Copy)]
struct Burst {
    /// It is over if nothing comes until then.
    quiet: Instant,
    /// It is cut then.
    end: Instant,
}

impl Watch {
    /// Subscribes. Changes after this call are not missed.
    pub fn open() -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Tc,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])?;
        tokio::spawn(connection);
        Ok(Self::over(messages.map(|_| ()).boxed()))
    }

    fn over(messages: BoxStream<'static, ()>) -> Self {
        Self {
            messages,
            burst: None,
        }
    }

    /// Waits for the end of the next burst of changes; `false` if the subscription broke. A call that is
    /// cancelled loses nothing: the burst goes on in the next one.
    pub async fn changed(&mut self) -> bool {
        loop {
            let Some(burst) = self.burst else {
                if self.messages.next().await.is_none() {
                    return false;
                }
                let now = Instant::now();
                self.burst = Some(Burst {
                    quiet: now + QUIET,
                    end: now + LONGEST,
                });
                continue;
            };
            let until = burst.quiet.min(burst.end);
            match timeout_at(until, self.messages.next()).await {
                Ok(Some(())) if Instant::now() < burst.end => {
                    let quiet = Instant::now() + QUIET;
                    self.burst = Some(Burst { quiet, ..burst });
                }
                Ok(None) => {
                    self.burst = None;
                    return false;
                }
                _ => {
                    self.burst = None;
                    return true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_change() {
        let burst = stream::iter([(), (), ()]).chain(stream::pending());
        let mut watch = Watch::over(burst.boxed());
        let start = Instant::now();
        assert!(watch.changed().await);
        assert_eq!(start.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_burst_is_cut() {
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some(((), ()))
        });
        let mut watch = Watch::over(endless.boxed());
        let start = Instant::now();
        assert!(watch.changed().await);
        assert!(start.elapsed() <= LONGEST + QUIET);
        assert!(watch.changed().await);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_told() {
        let mut watch = Watch::over(stream::empty().boxed());
        assert!(!watch.changed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_loses_nothing() {
        let one = stream::iter([()]).chain(stream::pending());
        let mut watch = Watch::over(one.boxed());
        let soon = Instant::now() + QUIET / 2;
        assert!(timeout_at(soon, watch.changed()).await.is_err());
        assert!(watch.changed().await);
    }
}
