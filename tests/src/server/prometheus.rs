//! A real Prometheus in the entrance, and what its HTTP API answers.
//!
//! It is configured by the files of `packaging/prometheus/` as they are installed, but for the times: a scrape
//! and an evaluation a second, or a test would have to wait for minutes. The API is that of
//! <https://prometheus.io/docs/prometheus/2.42/querying/api/>.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::wait_listening;
use crate::error::{Context, Error, Result};
use crate::lab::Lab;
use crate::process::Daemon;

const PORT: u16 = 9090;
/// A query may take so long on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The folder with the scrape configuration and the rules.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus")
}

/// Seconds since 1970, as its API counts time.
#[must_use]
pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus<'a> {
    daemon: Daemon,
    lab: &'a Lab,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels, `__name__` among them if it has one.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970, and the value there; one point in the answer to an instant query.
    pub points: Vec<(f64, f64)>,
}

impl<'a> Prometheus<'a> {
    /// Starts it in the lab's entrance with the configuration that is shipped, and its rules.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let config = lab.folder().join("prometheus.yml");
        std::fs::write(&config, quick_configuration()?)
            .context(|| format!("writing {}", config.display()))?;
        let mut command = lab.entrance.command("prometheus")?;
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lab.folder().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        let daemon = Daemon::start("prometheus", command, &lab.folder().join("prometheus.log"))?;
        wait_listening(&daemon, &lab.entrance, PORT)?;
        Ok(Self { daemon, lab })
    }

    /// The series that an expression has now.
    pub fn query(&self, expression: &str) -> Result<Vec<Series>> {
        let data = self.get("query", &[("query", expression)])?;
        series(&data)
    }

    /// The series that an expression had between two times, in seconds since 1970.
    pub fn query_range(
        &self,
        expression: &str,
        start: f64,
        end: f64,
        step: f64,
    ) -> Result<Vec<Series>> {
        let parameters = [
            ("query", expression),
            ("start", &format!("{start:.3}")),
            ("end", &format!("{end:.3}")),
            ("step", &step.to_string()),
        ];
        series(&self.get("query_range", &parameters)?)
    }

    /// The values that a label has in the series of a selector: what Grafana's `label_values` asks for.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let data = self.get(&format!("label/{label}/values"), &[("match[]", selector)])?;
        let values = data.as_array().into_iter().flatten();
        Ok(values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect())
    }

    /// The field `data` of an answer of the API.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let query: Vec<String> = parameters
            .iter()
            .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
            .collect();
        let target = format!("/api/v1/{path}?{}", query.join("&"));
        let text = self
            .lab
            .entrance
            .enter(|| fetch(&target))?
            .context(|| format!("asking Prometheus for {target}"))?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: Value = serde_json::from_str(body).map_err(|_| self.misunderstood(&text))?;
        if answer["status"] != "success" {
            return Err(Error::Unintelligible {
                what: format!("the query {parameters:?}"),
                text: answer.to_string(),
            });
        }
        Ok(answer["data"].clone())
    }

    fn misunderstood(&self, text: &str) -> Error {
        Error::Unintelligible {
            what: String::from("an answer of Prometheus"),
            text: format!("{text}\nits log:\n{}", self.daemon.log()),
        }
    }
}

/// The scrape configuration of the package with its rules from the source tree, and the pace of a test.
fn quick_configuration() -> Result<String> {
    let path = folder().join("scrape.yml");
    let text = std::fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    let rules = folder().join("rules.yml");
    let paced = text.replace("scrape_interval: 15s", "scrape_interval: 1s");
    assert_ne!(paced, text, "{} has another interval", path.display());
    Ok(format!(
        "global:\n  evaluation_interval: 1s\nrule_files: [{rules:?}]\n{paced}"
    ))
}

/// HTTP/1.0, so that the body comes in one piece and ends with the connection.
fn fetch(target: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Reads results of the types `vector`, `matrix` and `scalar`.
fn series(data: &Value) -> Result<Vec<Series>> {
    let point = |pair: &Value| -> Option<(f64, f64)> {
        Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?))
    };
    let one = |own: &Value| -> Option<Series> {
        let labels = own["metric"].as_object()?.iter();
        let labels = labels.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let points = match own["values"].as_array() {
            Some(points) => points.iter().map(point).collect::<Option<_>>()?,
            None => vec![point(&own["value"])?],
        };
        Some(Series {
            labels: labels.collect::<Option<_>>()?,
            points,
        })
    };
    let all = match data["resultType"].as_str() {
        Some("scalar") => point(&data["result"]).map(|point| {
            vec![Series {
                labels: BTreeMap::new(),
                points: vec![point],
            }]
        }),
        _ => data["result"]
            .as_array()
            .and_then(|all| all.iter().map(one).collect()),
    };
    all.ok_or_else(|| Error::Unintelligible {
        what: String::from("a result of Prometheus"),
        text: data.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{escaped, series};

    #[test]
    fn results_of_every_type_are_read() {
        let scalar = json!({ "resultType": "scalar", "result": [1.5, "2"] });
        assert_eq!(series(&scalar).unwrap()[0].points, [(1.5, 2.0)]);
        let matrix = json!({ "resultType": "matrix", "result": [
            { "metric": { "node": "a" }, "values": [[1, "NaN"], [2, "+Inf"]] } ]});
        let read = &series(&matrix).unwrap()[0];
        assert_eq!(read.labels["node"], "a");
        assert!(read.points[0].1.is_nan() && read.points[1].1 == f64::INFINITY);
        assert!(series(&json!({ "result": [{ "metric": {} }] })).is_err());
    }

    #[test]
    fn queries_survive_the_address() {
        assert_eq!(
            escaped("up{a=~\"b|c\"}"),
            "up%7Ba%3D~%22b%7Cc%22%7D".replace('~', "%7E")
        );
    }
}
