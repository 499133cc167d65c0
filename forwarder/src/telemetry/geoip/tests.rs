//! Look-ups in small databases, and files that come, change and go.

#[path = "../../../../tests/src/mmdb.rs"]
mod mmdb;

use std::time::{Duration, Instant};

use mmdb::Value;

use super::*;

fn countries(built: u64, code: &str) -> Vec<u8> {
    let networks = [
        ("198.51.100.0".parse().unwrap(), 24, code),
        ("2001:db8::".parse().unwrap(), 32, "FR"),
        // Not a code: never a label.
        ("203.0.113.0".parse().unwrap(), 24, "x\"y"),
    ];
    mmdb::countries(built, &networks)
}

fn networks() -> Vec<u8> {
    let record = [
        ("autonomous_system_number", Value::Number(64_500)),
        ("autonomous_system_organization", Value::Text("Exämple AG")),
    ];
    let networks = [("198.51.100.0".parse().unwrap(), 25, Value::Map(&record))];
    mmdb::database("GeoLite2-ASN", 7, &networks)
}

fn settings(directory: &Path) -> Settings {
    Settings {
        country: Some(directory.join("country.mmdb")),
        asn: Some(directory.join("asn.mmdb")),
    }
}

fn country(databases: &Databases, address: &str) -> Option<String> {
    let country = databases.country(address.parse().unwrap());
    country.map(|country| country.to_string())
}

#[test]
fn addresses_have_countries_and_networks() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    fs::write(settings.country.as_ref().unwrap(), countries(5, "DE")).unwrap();
    fs::write(settings.asn.as_ref().unwrap(), networks()).unwrap();
    let databases = Databases::read(&settings, &Databases::default());
    for (address, code) in [
        ("198.51.100.4", Some("DE")),
        ("::ffff:198.51.100.4", Some("DE")),
        ("198.51.101.4", None),
        ("2001:db8:1::7", Some("FR")),
        ("2001:db9::7", None),
        ("203.0.113.9", None),
    ] {
        assert_eq!(country(&databases, address).as_deref(), code, "{address}");
    }
    let place = databases.place("198.51.100.4".parse().unwrap()).unwrap();
    assert_eq!(place.asn, Some(64_500));
    assert_eq!(place.as_org.as_deref(), Some("Exämple AG"));
    let place = databases.place("198.51.100.200".parse().unwrap()).unwrap();
    assert_eq!((place.asn, place.as_org), (None, None));
    assert_eq!(
        databases.built(),
        BTreeMap::from([("country", 5), ("asn", 7)])
    );
    assert_eq!(
        Databases::default().place("198.51.100.4".parse().unwrap()),
        None
    );
}

#[test]
fn other_schemas_are_understood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    let registered = [("iso_code", Value::Text("CH"))];
    let networks = [
        (
            "198.51.100.0".parse().unwrap(),
            24,
            Value::Map(&[("country_code", Value::Text("at"))]),
        ),
        (
            "203.0.113.0".parse().unwrap(),
            24,
            Value::Map(&[("registered_country", Value::Map(&registered))]),
        ),
        ("192.0.2.0".parse().unwrap(), 24, Value::Text("no map")),
    ];
    fs::write(&path, mmdb::database("other", 1, &networks)).unwrap();
    let settings = Settings {
        country: Some(path),
        asn: None,
    };
    let databases = Databases::read(&settings, &Databases::default());
    assert_eq!(country(&databases, "198.51.100.4").as_deref(), Some("AT"));
    assert_eq!(country(&databases, "203.0.113.4").as_deref(), Some("CH"));
    assert_eq!(country(&databases, "192.0.2.4"), None);
}

#[test]
fn a_file_that_comes_or_changes_is_read_and_one_that_goes_stays() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let path = settings.country.clone().unwrap();
    let databases = Databases::read(&settings, &Databases::default());
    assert!(databases.knows_countries());
    assert_eq!(country(&databases, "198.51.100.4"), None);

    fs::write(&path, countries(5, "DE")).unwrap();
    let first = Databases::read(&settings, &databases);
    assert_eq!(country(&first, "198.51.100.4").as_deref(), Some("DE"));
    let again = Databases::read(&settings, &first);
    let database = |own: &Databases| own.country.as_ref().unwrap().database.clone().unwrap();
    assert!(
        Arc::ptr_eq(&database(&first), &database(&again)),
        "not read again"
    );

    // As updaters do it: a new file takes the name.
    let new = directory.path().join("new");
    fs::write(&new, countries(6, "PL")).unwrap();
    fs::rename(&new, &path).unwrap();
    let second = Databases::read(&settings, &again);
    assert_eq!(country(&second, "198.51.100.4").as_deref(), Some("PL"));

    fs::write(&path, "half of a database").unwrap();
    let third = Databases::read(&settings, &second);
    assert_eq!(country(&third, "198.51.100.4").as_deref(), Some("PL"));
    fs::remove_file(&path).unwrap();
    let fourth = Databases::read(&settings, &third);
    assert_eq!(country(&fourth, "198.51.100.4").as_deref(), Some("PL"));
    assert_eq!(fourth.built(), BTreeMap::from([("country", 6)]));
}

#[tokio::test]
async fn the_daemon_goes_on_while_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let tally = Arc::new(Tally::default());
    let mut geoip = GeoIp::new(&Settings::default(), tally.clone());
    assert!(!geoip.databases().knows_countries());
    fs::write(settings.country.as_ref().unwrap(), countries(5, "DE")).unwrap();
    geoip.adopt(&settings);
    let deadline = Instant::now() + Duration::from_secs(20);
    while country(&geoip.databases(), "198.51.100.4").is_none() {
        assert!(Instant::now() < deadline, "never read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(tally.databases(), BTreeMap::from([("country", 5)]));
    geoip.adopt(&Settings::default());
    while geoip.databases().knows_countries() {
        assert!(Instant::now() < deadline, "never given up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tally.databases().is_empty());
}

/// Does something on a thread whose files are those of nobody in particular.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: two numbers, and it holds for this thread only, which ends right after.
            unsafe { libc::setfsuid(65_534) };
            work()
        });
        thread.join().unwrap()
    })
}

/// Neither size nor time of writing tell of it.
#[test]
fn a_file_that_becomes_readable_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(directory.path(), 0o755);
    let settings = Settings {
        country: Some(directory.path().join("country.mmdb")),
        asn: None,
    };
    let path = settings.country.as_ref().unwrap();
    fs::write(path, countries(5, "DE")).unwrap();
    mode(path, 0o600);
    let refused = as_nobody(|| Databases::read(&settings, &Databases::default()));
    assert_eq!(country(&refused, "198.51.100.4"), None);
    mode(path, 0o644);
    let read = as_nobody(|| Databases::read(&settings, &refused));
    assert_eq!(country(&read, "198.51.100.4").as_deref(), Some("DE"));
}
