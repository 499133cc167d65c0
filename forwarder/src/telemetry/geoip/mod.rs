//! Where clients are: country and network, from MaxMind DB files.
//!
//! The files are read into memory whole, off the packet path and off the daemon's loop; a file that is
//! replaced is read again. What cannot be read is said once, and everything works without.
//! <https://maxmind.github.io/MaxMind-DB/>

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maxminddb::{MaxMindDbError, Reader, path};
use serde::Serialize;
use tracing::{info, warn};

use super::counters::Tally;
use crate::config::model::GeoIp as Settings;
use crate::telemetry::country::Country;

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Its country.
    pub country: Option<Country>,
    /// The number of its network (autonomous system).
    pub asn: Option<u32>,
    /// Who runs that network.
    pub as_org: Option<String>,
}

/// The databases that are in use.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    country: Option<File>,
    asn: Option<File>,
}

/// One file.
#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    /// Which state of the file was read last, or could not be.
    stamp: Option<Stamp>,
    /// What was read last.
    database: Option<Arc<Reader<Vec<u8>>>>,
}

/// What changes when a file is replaced or written to, or when other rights are given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let own = fs::metadata(path)?;
        Ok(Self {
            device: own.dev(),
            inode: own.ino(),
            size: own.size(),
            modified: (own.mtime(), own.mtime_nsec()),
            changed: (own.ctime(), own.ctime_nsec()),
        })
    }
}

impl File {
    /// The file at `path`, as it is now. What `former` has is kept if it is still the same, or cannot be read.
    fn read(path: &Path, former: Option<&Self>) -> Self {
        let former = former.filter(|former| former.path == path);
        // Before it is read: whatever changes meanwhile is noticed the next time.
        let seen = Stamp::of(path);
        let stamp = seen.as_ref().ok().copied();
        if let Some(former) = former
            && former.stamp == stamp
        {
            return former.clone();
        }
        let read = seen
            .map_err(MaxMindDbError::from)
            .and_then(|_| Reader::open_readfile(path));
        let database = match read {
            Ok(reader) => {
                let own = reader.metadata();
                info!(path = %path.display(), kind = own.database_type, built = own.build_epoch, "GeoIP database read");
                Some(Arc::new(reader))
            }
            Err(error) => {
                let former = former.and_then(|former| former.database.clone());
                let goes_on = match former {
                    Some(_) => "the former one stays in use",
                    None => "going on without",
                };
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the GeoIP database {}; {goes_on}",
                    path.display()
                );
                former
            }
        };
        Self {
            path: path.to_owned(),
            stamp,
            database,
        }
    }

    fn built(&self) -> Option<u64> {
        Some(self.database.as_ref()?.metadata().build_epoch)
    }
}

impl Databases {
    /// The files of a configuration, as they are now; those of `former` that have not changed are not read
    /// again.
    pub fn read(settings: &Settings, former: &Self) -> Self {
        let read = |path: &Option<PathBuf>, former: &Option<File>| {
            let path = path.as_ref()?;
            Some(File::read(path, former.as_ref()))
        };
        Self {
            country: read(&settings.country, &former.country),
            asn: read(&settings.asn, &former.asn),
        }
    }

    /// When each database that is in use was built, seconds since 1970.
    pub fn built(&self) -> BTreeMap<&'static str, u64> {
        let all = [("country", &self.country), ("asn", &self.asn)];
        let built = all
            .into_iter()
            .map(|(name, file)| Some((name, file.as_ref()?.built()?)));
        built.flatten().collect()
    }

    /// Whether countries are asked for.
    pub fn knows_countries(&self) -> bool {
        self.country.is_some()
    }

    /// The country of an address.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        let database = self.country.as_ref()?.database.as_ref()?;
        let found = database.lookup(address.to_canonical()).ok()?;
        let code = |path: &[_]| found.decode_path::<&str>(path).ok().flatten();
        // The last is how IPinfo writes it.
        let code = code(&path!["country", "iso_code"])
            .or_else(|| code(&path!["registered_country", "iso_code"]))
            .or_else(|| code(&path!["country_code"]));
        code.and_then(Country::from_code)
    }

    /// Where an address is; `None` if no database is asked for.
    pub fn place(&self, address: IpAddr) -> Option<Location> {
        if self.country.is_none() && self.asn.is_none() {
            return None;
        }
        let (asn, as_org) = self.network(address).unwrap_or_default();
        Some(Location {
            country: self.country(address),
            asn,
            as_org,
        })
    }

    fn network(&self, address: IpAddr) -> Option<(Option<u32>, Option<String>)> {
        let database = self.asn.as_ref()?.database.as_ref()?;
        let found = database.lookup(address.to_canonical()).ok()?;
        let number = found.decode_path(&path!["autonomous_system_number"]);
        let org = found.decode_path(&path!["autonomous_system_organization"]);
        Some((number.ok().flatten(), org.ok().flatten()))
    }
}

/// The daemon's view: databases that are replaced while it goes on.
#[derive(Debug)]
pub struct GeoIp {
    settings: Settings,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Shared {
    databases: Mutex<Arc<Databases>>,
    /// One reading of files at a time.
    reading: Mutex<()>,
}

impl GeoIp {
    /// The databases of a configuration, read at once.
    pub fn new(settings: &Settings, tally: Arc<Tally>) -> Self {
        let own = Self {
            settings: settings.clone(),
            shared: Arc::default(),
            tally,
        };
        own.shared.read(settings, &own.tally);
        own
    }

    /// Goes on as configured now.
    pub fn adopt(&mut self, settings: &Settings) {
        self.settings = settings.clone();
        self.refresh();
    }

    /// Reads files that have changed, aside.
    pub fn refresh(&self) {
        if self.settings == Settings::default() && !self.databases().knows_any() {
            return;
        }
        let (shared, settings) = (self.shared.clone(), self.settings.clone());
        let tally = self.tally.clone();
        tokio::task::spawn_blocking(move || shared.read(&settings, &tally));
    }

    /// The databases in use.
    pub fn databases(&self) -> Arc<Databases> {
        self.shared.current().clone()
    }
}

impl Databases {
    fn knows_any(&self) -> bool {
        self.country.is_some() || self.asn.is_some()
    }
}

impl Shared {
    fn read(&self, settings: &Settings, tally: &Tally) {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let former = self.current().clone();
        let databases = Databases::read(settings, &former);
        tally.databases_loaded(databases.built());
        *self.current() = Arc::new(databases);
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Arc<Databases>> {
        // Nothing can be left half done by a panic in here.
        self.databases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
