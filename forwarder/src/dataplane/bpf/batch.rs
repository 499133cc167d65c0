//! Many entries with one system call (`BPF_MAP_*_BATCH`, Linux 5.6; of tries 5.13).
//!
//! Key by key a table of 65,536 flows costs 131,072 system calls, and iteration starts over whenever the
//! key it stands at is removed. By buckets it costs a few hundred, and removal does not disturb it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use aya::Pod;

/// `enum bpf_cmd` of `include/uapi/linux/bpf.h`.
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;
/// `ENOTSUPP` of `include/linux/errno.h`, which never should reach user space and does.
const ENOTSUPP: libc::c_int = 524;
/// Attempts at an entry for which there is no memory at the moment, a millisecond apart.
const ALLOCATION_TRIES: u32 = 100;
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

impl BatchAttr {
    /// Asks the kernel; returns why it did not do all.
    ///
    /// # Safety
    /// What the pointers lead to is as `command` and the map want it.
    unsafe fn call(&mut self, command: libc::c_int) -> Option<io::Error> {
        let size = size_of::<Self>();
        // SAFETY: this is the batch member of `bpf_attr`; the rest is the caller's promise.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *self, size) };
        (answer != 0).then(io::Error::last_os_error)
    }
}

/// The member of `union bpf_attr` that is about one entry.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Removes an entry of a hash and returns what was removed, in one step (Linux 5.14). On older kernels it is what was
/// there immediately before.
pub fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let at = value.as_mut_ptr() as u64;
    let mut done = element(map, BPF_MAP_LOOKUP_AND_DELETE_ELEM, key, at);
    if done.as_ref().is_err_and(is_unknown) {
        done = element(map, BPF_MAP_LOOKUP_ELEM, key, at);
        if done.is_ok() {
            done = element(map, BPF_MAP_DELETE_ELEM, key, 0);
        }
    }
    match done {
        // SAFETY: zeroed at first, then written by the kernel; any bytes are a valid `Pod`.
        Ok(()) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads, writes or removes one entry.
fn element<K: Pod>(
    map: BorrowedFd<'_>,
    command: libc::c_int,
    key: &K,
    value: u64,
) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value,
        flags: 0,
    };
    let size = size_of::<ElementAttr>();
    // SAFETY: the pointers lead to a key and, unless it is 0, a value of this map (the caller opened it with these
    // types), which the kernel only reads, or writes where the command says so.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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
        // SAFETY: the pointers lead to buffers that hold `count` keys and values of this map (the caller opened
        // it with these types) and to a position, which is four bytes for a hash map.
        let error = unsafe { attr.call(BPF_MAP_LOOKUP_BATCH) };
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

/// Writes entries, as many as there are of both.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = keys.len().min(values.len());
    let (keys, values) = (&keys[..count], &values[..count]);
    if keys.is_empty() {
        return Ok(());
    }
    let (done, error) = batch(map, BPF_MAP_UPDATE_BATCH, keys, values.as_ptr() as u64);
    match error {
        None => Ok(()),
        Some(error) if is_unknown(&error) || is_passing(&error) => {
            // The kernel may have failed before it counted.
            let done = if done < count { done } else { 0 };
            let mut rest = keys[done..].iter().zip(&values[done..]);
            rest.try_for_each(|(key, value)| patiently(map, key, value))
        }
        Some(error) => Err(error),
    }
}

/// Writes an entry. A map that takes memory by the entry has a small store of it, which is filled up behind it.
fn patiently<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let value = std::ptr::from_ref(value) as u64;
        match element(map, BPF_MAP_UPDATE_ELEM, key, value) {
            Err(error) if is_passing(&error) && tries < ALLOCATION_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOMEM)
}

/// Removes entries; those that are not there are passed over.
pub fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut done = 0;
    while done < keys.len() {
        let (gone, error) = batch(map, BPF_MAP_DELETE_BATCH, &keys[done..], 0);
        done += gone;
        match error {
            None => {}
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => done += 1,
            Some(error) if is_unknown(&error) => break,
            Some(error) => return Err(error),
        }
    }
    for key in keys.iter().skip(done) {
        match element(map, BPF_MAP_DELETE_ELEM, key, 0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_unknown(error: &io::Error) -> bool {
    let known = [libc::EINVAL, libc::EOPNOTSUPP, ENOTSUPP];
    error.raw_os_error().is_some_and(|own| known.contains(&own))
}

/// One call about some keys. Says how many were done before an error.
fn batch<K: Pod>(
    map: BorrowedFd<'_>,
    command: libc::c_int,
    keys: &[K],
    values: u64,
) -> (usize, Option<io::Error>) {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the pointers lead to at least `count` keys and values of this map (the caller opened it with these
    // types), which the kernel only reads.
    let error = unsafe { attr.call(command) };
    // A kernel that does not know the command leaves the count as it is.
    let nothing = error.as_ref().is_some_and(is_unknown);
    (if nothing { 0 } else { attr.count as usize }, error)
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

    /// Needs the right to make maps.
    #[test]
    fn entries_are_written_and_removed_together() {
        let Ok(map) = HashMap::<_, u32, u64>::create(100, 0) else {
            eprintln!("skipped: no right to make maps");
            return;
        };
        let keys: Vec<u32> = (0..50).collect();
        let values: Vec<u64> = (100..150).collect();
        update(map.map().fd().as_fd(), &keys, &values).unwrap();
        assert_eq!(map.get(&7, 0).unwrap(), 107);
        let some: Vec<u32> = (40..60).collect();
        delete(map.map().fd().as_fd(), &some).unwrap();
        assert_eq!(map.keys().count(), 40);
        let many: Vec<u32> = (0..200).collect();
        let values = vec![0; 200];
        assert!(
            update(map.map().fd().as_fd(), &many, &values).is_err(),
            "no room"
        );
        let fd = map.map().fd().as_fd();
        let value = 7_u64;
        let at = std::ptr::from_ref(&value) as u64;
        element(fd, BPF_MAP_UPDATE_ELEM, &1_u32, at).unwrap();
        assert_eq!(map.get(&1, 0).unwrap(), 7);
        element(fd, BPF_MAP_DELETE_ELEM, &1_u32, 0).unwrap();
        // The update that found no room had begun.
        assert_eq!(take(fd, &2_u32).unwrap(), Some(0_u64));
        assert_eq!(take::<u32, u64>(fd, &2_u32).unwrap(), None, "it is gone");
        let error = element(fd, BPF_MAP_DELETE_ELEM, &1_u32, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
