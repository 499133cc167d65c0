//! Who is at the other end of the socket, and what they may do.

use std::os::fd::AsRawFd;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

/// The group whose members may use the socket.
pub const GROUP: &str = "forwarder";
/// More supplementary groups than this are not looked at; `NGROUPS_MAX` of Linux.
const GROUPS_MAX: usize = 65_536;

/// The credentials of a connected process, as the kernel recorded them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
    groups: Vec<u32>,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            return Self {
                uid: None,
                pid: None,
                groups: Vec::new(),
            };
        };
        let mut groups = supplementary(stream);
        groups.push(credentials.gid());
        Self {
            uid: Some(credentials.uid()),
            pid: credentials.pid(),
            groups,
        }
    }

    /// Its user, who may be nobody that this machine knows by name.
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Its process, as it was when it connected.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// What that process calls itself, while it is there and may be looked at.
    pub fn program(&self) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid?)).ok()?;
        Some(name.trim().to_owned())
    }

    /// Whether it may change anything: root, the daemon's own user, or a member of the group.
    pub fn may_change(&self) -> bool {
        // SAFETY: no argument, cannot fail.
        let own = unsafe { libc::geteuid() };
        self.is_allowed(own, group())
    }

    fn is_allowed(&self, own: u32, group: Option<u32>) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == own)
            || group.is_some_and(|group| self.groups.contains(&group))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::of(stream.io())
    }
}

/// `SO_PEERGROUPS` (Linux 4.13).
fn supplementary(stream: &UnixStream) -> Vec<u32> {
    let mut groups = vec![0_u32; GROUPS_MAX];
    let mut length = (groups.len() * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the buffer holds `length` bytes, and the kernel writes no more.
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let count = if answer == 0 {
        length as usize / size_of::<u32>()
    } else {
        0
    };
    groups.truncate(count);
    groups
}

/// The number of the group, if this machine has it.
pub fn group() -> Option<u32> {
    number_of(GROUP, &std::fs::read_to_string("/etc/group").ok()?)
}

/// `group(5)`: name, password, number, members.
fn number_of(name: &str, file: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_by_its_whole_name() {
        let file = "root:x:0:\nforwarders:x:7:\nforwarder:x:990:me\n";
        assert_eq!(number_of("forwarder", file), Some(990));
        assert_eq!(number_of("nobody", file), None);
    }

    #[test]
    fn root_owner_and_group_may_change_things() {
        let peer = |uid, groups: &[u32]| Peer {
            uid: Some(uid),
            pid: None,
            groups: groups.to_vec(),
        };
        assert!(peer(0, &[]).is_allowed(500, None));
        assert!(peer(500, &[500]).is_allowed(500, None));
        assert!(peer(1_000, &[1_000, 990]).is_allowed(500, Some(990)));
        assert!(!peer(1_000, &[1_000]).is_allowed(500, Some(990)));
        assert!(!peer(1_000, &[1_000]).is_allowed(500, None));
        let nobody = Peer {
            uid: None,
            pid: None,
            groups: vec![1],
        };
        assert!(!nobody.is_allowed(500, Some(990)));
    }

    #[tokio::test]
    async fn the_kernel_knows_the_other_end() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one);
        assert!(peer.may_change(), "it is this very process");
        assert_eq!(peer.pid(), Some(std::process::id() as i32));
        assert!(peer.program().is_some_and(|name| !name.is_empty()));
    }
}
