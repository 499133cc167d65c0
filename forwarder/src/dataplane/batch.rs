//! Reads a whole hash map a few hundred entries at a time (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
//!
//! Key by key a table of 65,536 flows costs 131,072 system calls, and iteration starts over whenever the
//! key it stands at is removed. By buckets it costs a few hundred, and removal does not disturb it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

/// `enum bpf_cmd` of `include/uapi/linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries a call, at first; grows where one bucket holds more.
const CHUNK: usize = 512;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `each` with every entry. An entry that comes or goes meanwhile may be missed, never torn.
pub fn scan<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(K, V)) -> io::Result<()> {
    let mut chunk = CHUNK;
    let mut position: Option<u64> = None;
    loop {
        let mut keys = vec![0_u8; chunk * size_of::<K>()];
        let mut values = vec![0_u8; chunk * size_of::<V>()];
        let from = position.unwrap_or_default();
        let mut to = 0_u64;
        let mut attr = BatchAttr {
            in_batch: position.map_or(0, |_| (&raw const from) as u64),
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `attr` is the batch member of `bpf_attr`; its pointers lead to buffers that hold `count`
        // keys and values of this map (the caller opened it with these types) and to a position, which is
        // four bytes for a hash map.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let error = (answer != 0).then(io::Error::last_os_error);
        let last = match error.as_ref().and_then(io::Error::raw_os_error) {
            None => false,
            Some(libc::ENOENT) => true,
            Some(libc::ENOSPC) => {
                chunk *= 2;
                continue;
            }
            Some(_) => return error.map_or(Ok(()), Err),
        };
        for at in 0..attr.count as usize {
            // SAFETY: the kernel wrote `count` entries, and any bytes are a valid `Pod`.
            let (key, value) = unsafe {
                (
                    keys.as_ptr().cast::<K>().add(at).read_unaligned(),
                    values.as_ptr().cast::<V>().add(at).read_unaligned(),
                )
            };
            each(key, value);
        }
        if last {
            return Ok(());
        }
        position = Some(to);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use aya::maps::{HashMap, IterableMap};

    use super::*;

    /// Needs the right to make maps.
    #[test]
    fn every_entry_is_seen_once() {
        let Ok(mut map) = HashMap::<_, u32, u64>::create(5_000, 0) else {
            eprintln!("skipped: no right to make maps");
            return;
        };
        for key in 0..4_000 {
            map.insert(key, u64::from(key) * 3, 0).unwrap();
        }
        let mut seen = std::collections::BTreeMap::new();
        scan(map.map().fd().as_fd(), |key: u32, value: u64| {
            assert_eq!(seen.insert(key, value), None);
        })
        .unwrap();
        assert_eq!(seen.len(), 4_000);
        assert!(
            seen.iter()
                .all(|(key, value)| *value == u64::from(*key) * 3)
        );
    }
}
