//! Maps without their types: everything that programs can reach is emptied, so that the next test begins with nothing.
//!
//! Which maps there are is asked of the kernel, program by program. A map that is new in the programs is therefore
//! emptied too, and one of a kind that nobody here can empty is an error.
//!
//! System call and structures: Linux `include/uapi/linux/bpf.h`. Batches need Linux 5.13 for values of each processor.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Map, MapData, MapError, MapInfo, MapType, RingBuf};
use aya::programs::{ProgramError, ProgramInfo};

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const NEXT_KEY: libc::c_long = 4;
const TAKE: libc::c_long = 21;
const UPDATE_BATCH: libc::c_long = 26;

/// `BPF_F_RDONLY_PROG`: constants of the programs.
const CONSTANT: u32 = 1 << 7;
/// How much is written at once.
const CHUNK: usize = 4 << 20;

/// Why a map cannot be emptied.
#[derive(Debug, thiserror::Error)]
pub enum BlankError {
    /// The kernel does not tell which maps a program has.
    #[error("the maps of a program are unknown")]
    Program(#[from] ProgramError),
    /// The kernel does not tell what a map is.
    #[error("a map cannot be opened")]
    Map(#[from] MapError),
    /// It is not known how many processors a map has values for.
    #[error("cannot count processors by {file}")]
    Processors {
        /// Where the kernel says it.
        file: String,
        /// Why it could not be read.
        source: io::Error,
    },
    /// Nobody here can empty such a map.
    #[error("{map} is a {kind:?}, which nobody empties")]
    Kind {
        /// Its name.
        map: String,
        /// Its kind.
        kind: MapType,
    },
    /// The kernel refuses.
    #[error("{map} cannot be emptied")]
    Refused {
        /// Its name.
        map: String,
        /// Why.
        source: io::Error,
    },
}

/// How a map is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Entries are always there: they become zero.
    Array,
    /// Entries come and go.
    Table,
    /// They have no key.
    Queue,
    /// Only programs write it.
    Ring,
    /// It holds programs, not what they know.
    Programs,
}

/// An entry of a map. In a queue there is no key.
pub type KeyAndValue = (Vec<u8>, Vec<u8>);

/// A map of loaded programs.
#[derive(Debug)]
pub struct AnyMap {
    /// Its name.
    pub name: String,
    data: MapData,
    kind: Kind,
    key: usize,
    value: usize,
    entries: usize,
}

/// `BPF_MAP_*_ELEM` of `union bpf_attr`.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_*_BATCH` of `union bpf_attr`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Every map that one of these programs uses, by its name.
pub fn maps_of(programs: &[ProgramInfo]) -> Result<Vec<AnyMap>, BlankError> {
    let mut maps = BTreeMap::new();
    for program in programs {
        for id in program.map_ids()?.unwrap_or_default() {
            let info = MapInfo::from_id(id)?;
            if info.map_flags() & CONSTANT == 0 {
                maps.insert(id, AnyMap::open(&info)?);
            }
        }
    }
    let mut maps: Vec<_> = maps.into_values().collect();
    maps.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(maps)
}

impl AnyMap {
    fn open(info: &MapInfo) -> Result<Self, BlankError> {
        let name = info.name_as_str().unwrap_or_default().to_owned();
        // The kernel writes a value for each of them.
        let processors = aya::util::nr_cpus().map_err(|(file, source)| BlankError::Processors {
            file: file.to_owned(),
            source,
        })?;
        let of_each_processor = |size: u32| (size as usize).next_multiple_of(8) * processors;
        let (kind, value) = match info.map_type()? {
            MapType::Array => (Kind::Array, info.value_size() as usize),
            MapType::PerCpuArray => (Kind::Array, of_each_processor(info.value_size())),
            MapType::Hash | MapType::LruHash | MapType::LpmTrie => {
                (Kind::Table, info.value_size() as usize)
            }
            MapType::PerCpuHash | MapType::LruPerCpuHash => {
                (Kind::Table, of_each_processor(info.value_size()))
            }
            MapType::Queue => (Kind::Queue, info.value_size() as usize),
            MapType::RingBuf => (Kind::Ring, 0),
            MapType::ProgramArray => (Kind::Programs, 0),
            kind => return Err(BlankError::Kind { map: name, kind }),
        };
        Ok(Self {
            name,
            data: MapData::from_id(info.id())?,
            kind,
            key: info.key_size() as usize,
            value,
            entries: info.max_entries() as usize,
        })
    }

    /// The map, to use it under its type.
    #[must_use]
    pub fn into_data(self) -> MapData {
        self.data
    }

    /// Takes everything out.
    pub fn empty(&self) -> Result<(), BlankError> {
        let done = match self.kind {
            Kind::Array => self.fill(0),
            Kind::Table => self.clear(),
            Kind::Queue => self.pop_all().map(drop),
            Kind::Ring => return self.read_all(),
            Kind::Programs => Ok(()),
        };
        done.map_err(|source| self.refused(source))
    }

    /// Puts something into every place that a test can reach from outside. Nothing where it cannot: then `false`.
    pub fn soil(&self) -> Result<bool, BlankError> {
        let done = match self.kind {
            Kind::Array => self.fill(0xa5),
            Kind::Table => self.insert_some(),
            Kind::Queue => self.push_all(&[0xa5].repeat(self.value)),
            Kind::Ring | Kind::Programs => return Ok(false),
        };
        done.map(|()| true).map_err(|source| self.refused(source))
    }

    /// What is in it: keys and values, of an array those that are not zero. Nothing of a ring.
    pub fn contents(&self) -> Result<Vec<KeyAndValue>, BlankError> {
        let contents = match self.kind {
            Kind::Array => self.entries_of(self.array_keys()),
            Kind::Table => self.table_keys().and_then(|keys| self.entries_of(keys)),
            Kind::Queue => self.turn(),
            Kind::Ring | Kind::Programs => Ok(Vec::new()),
        };
        let mut contents = contents.map_err(|source| self.refused(source))?;
        if self.kind == Kind::Array {
            contents.retain(|(_, value)| value.iter().any(|byte| *byte != 0));
        }
        Ok(contents)
    }

    fn refused(&self, source: io::Error) -> BlankError {
        BlankError::Refused {
            map: self.name.clone(),
            source,
        }
    }

    fn array_keys(&self) -> Vec<Vec<u8>> {
        let keys = 0..self.entries as u32;
        keys.map(|key| key.to_ne_bytes().to_vec()).collect()
    }

    fn table_keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while let Some(key) = self.next_key(keys.last().map(Vec::as_slice))? {
            keys.push(key);
        }
        keys.sort();
        Ok(keys)
    }

    fn entries_of(&self, keys: Vec<Vec<u8>>) -> io::Result<Vec<KeyAndValue>> {
        let with_value = |key: Vec<u8>| {
            let mut value = vec![0; self.value];
            self.element(LOOKUP, Some(&key), &mut value)?;
            Ok((key, value))
        };
        keys.into_iter().map(with_value).collect()
    }

    /// Sets every byte of an array.
    fn fill(&self, byte: u8) -> io::Result<()> {
        let at_once = (CHUNK / self.value).clamp(1, self.entries);
        let values = vec![byte; at_once * self.value];
        let keys: Vec<u32> = (0..self.entries as u32).collect();
        for keys in keys.chunks(at_once) {
            let mut batch = Batch {
                in_batch: 0,
                out_batch: 0,
                keys: keys.as_ptr() as u64,
                values: values.as_ptr() as u64,
                count: keys.len() as u32,
                map: self.descriptor(),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: both are as long as the count says, and live until the call returns.
            unsafe { call(UPDATE_BATCH, &mut batch) }?;
        }
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        while let Some(key) = self.next_key(None)? {
            self.element(DELETE, Some(&key), &mut [])?;
        }
        Ok(())
    }

    /// Three entries. The first four bytes of a key are the length of a trie's prefix.
    fn insert_some(&self) -> io::Result<()> {
        for number in 1..4_u8 {
            let mut key = vec![0; self.key];
            key[0] = 8 * number;
            key[4..].fill(number);
            self.element(UPDATE, Some(&key), &mut [number].repeat(self.value))?;
        }
        Ok(())
    }

    fn pop_all(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        loop {
            let mut value = vec![0; self.value];
            match self.element(TAKE, None, &mut value) {
                Ok(()) => all.push(value),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    fn push_all(&self, value: &[u8]) -> io::Result<()> {
        loop {
            match self.element(UPDATE, None, &mut value.to_vec()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn turn(&self) -> io::Result<Vec<KeyAndValue>> {
        let all = self.pop_all()?;
        for value in &all {
            self.element(UPDATE, None, &mut value.clone())?;
        }
        Ok(all.into_iter().map(|value| (Vec::new(), value)).collect())
    }

    fn read_all(&self) -> Result<(), BlankError> {
        let data = MapData::from_id(self.data.info()?.id())?;
        let mut ring = RingBuf::try_from(Map::from_map_data(data)?)?;
        while ring.next().is_some() {}
        Ok(())
    }

    fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key];
        match self.element(NEXT_KEY, key, &mut next) {
            Ok(()) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A call about one entry. `value` is read or written as the command has it.
    fn element(
        &self,
        command: libc::c_long,
        key: Option<&[u8]>,
        value: &mut [u8],
    ) -> io::Result<()> {
        let mut element = Element {
            map: self.descriptor(),
            pad: 0,
            key: key.map_or(0, |key| key.as_ptr() as u64),
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        if command == DELETE {
            element.value = 0;
        }
        // SAFETY: keys and values are as long as the map's are, and live until the call returns.
        unsafe { call(command, &mut element) }
    }

    fn descriptor(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd().cast_unsigned()
    }
}

/// The system call.
///
/// # Safety
/// What the attributes point at must be as long as the kernel takes it to be, and live until this returns.
unsafe fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the attributes are as long as they say; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
