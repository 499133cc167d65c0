//! Which keys exist, asked of the serde types themselves so that there is one list only.

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::raw::{
    RawConfig, RawEntrance, RawFlowLog, RawGeoIp, RawHealth, RawListener, RawMetrics, RawNodeTable,
    RawPool, RawRoute,
};

/// The keys of one table and the tables below them.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// How the table is written, for messages.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
    /// Keys whose value is a table or a list of tables.
    pub tables: &'static [Below],
}

/// A key, and the table below it.
pub type Below = (&'static str, fn() -> Table);

impl Table {
    /// The table below `key`, if `key` holds tables.
    pub fn below(&self, key: &str) -> Option<Table> {
        self.tables
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, table)| table())
    }
}

/// The whole file.
pub fn root() -> Table {
    Table {
        title: "the file",
        keys: keys_of::<RawConfig>(),
        tables: &[
            ("entrance", || leaf("[entrance]", keys_of::<RawEntrance>())),
            ("metrics", || leaf("[metrics]", keys_of::<RawMetrics>())),
            ("flow_log", || leaf("[flow_log]", keys_of::<RawFlowLog>())),
            ("geoip", || leaf("[geoip]", keys_of::<RawGeoIp>())),
            ("listener", || {
                leaf("[[listener]]", keys_of::<RawListener>())
            }),
            ("pool", pool),
            ("route", || leaf("[[route]]", keys_of::<RawRoute>())),
        ],
    }
}

fn pool() -> Table {
    Table {
        title: "[[pool]]",
        keys: keys_of::<RawPool>(),
        tables: &[
            ("health", || leaf("health", keys_of::<RawHealth>())),
            ("nodes", || leaf("a node", keys_of::<RawNodeTable>())),
        ],
    }
}

fn leaf(title: &'static str, keys: &'static [&'static str]) -> Table {
    Table {
        title,
        keys,
        tables: &[],
    }
}

/// The field names that a derived `Deserialize` asks for.
fn keys_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // The probe always ends in an error: it has a question and no data.
    let _ = T::deserialize(Probe { keys: &mut keys });
    keys
}

struct Probe<'a> {
    keys: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.keys = fields;
        Err(de::Error::custom("probe"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("probe"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_serde_types() {
        let root = root();
        assert_eq!(
            root.keys,
            [
                "entrance", "metrics", "flow_log", "geoip", "listener", "pool", "route"
            ]
        );
        let pool = root.below("pool").unwrap();
        assert_eq!(
            pool.keys,
            [
                "name",
                "client_address",
                "balance",
                "health",
                "slow_start",
                "when_empty",
                "on_down",
                "nodes"
            ]
        );
        let node = pool.below("nodes").unwrap();
        assert_eq!(node.keys, ["name", "address", "weight"]);
        assert!(root.below("route").unwrap().below("names").is_none());
    }
}
