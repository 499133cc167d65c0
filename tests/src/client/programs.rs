//! TLS clients that nobody here wrote, run inside a client's namespace.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::command::{self, describe, output, run};
use crate::error::{Error, Result};
use crate::netns::Namespace;
use crate::pki::Pki;

/// A `curl` command under construction.
#[derive(Debug)]
pub struct Curl {
    command: Command,
    url: String,
}

/// What curl brought back.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// The body.
    pub body: String,
    /// curl's exit status: 0, or one of the table in curl(1); 35 is a failed TLS handshake, 56 a
    /// reset, 28 a time-out, 7 a refused connection, 52 an empty reply.
    pub exit: i32,
    /// curl's own words when something failed.
    pub error: String,
    /// Bytes a second, down.
    pub download_speed: f64,
    /// Bytes a second, up.
    pub upload_speed: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// The command as it was run.
    pub command: String,
}

impl Curl {
    /// Prepares `https://name:port/path`, with the name resolving to `address` and the lab's
    /// authority trusted.
    pub fn new(
        namespace: &Namespace,
        pki: &Pki,
        name: &str,
        address: SocketAddr,
        path: &str,
    ) -> Result<Self> {
        let port = address.port();
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut command = namespace.command("curl")?;
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--noproxy",
                "*",
                "--http1.1",
            ])
            .arg("--cacert")
            .arg(&pki.authority)
            .args(["--resolve", &format!("{name}:{port}:{host}")]);
        let port = if port == 443 {
            String::new()
        } else {
            format!(":{port}")
        };
        Ok(Self {
            command,
            url: format!("https://{name}{port}{path}"),
        })
    }

    /// Adds curl's own arguments.
    #[must_use]
    pub fn args<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(words);
        self
    }

    /// Gives up after this long.
    #[must_use]
    pub fn limit(self, time: Duration) -> Self {
        self.args(["--max-time", &time.as_secs_f64().to_string()])
    }

    /// Uploads a file with `PUT`.
    #[must_use]
    pub fn upload(mut self, file: &Path) -> Self {
        self.command.arg("--upload-file").arg(file);
        self
    }

    /// Stores the body in a file instead.
    #[must_use]
    pub fn into_file(mut self, file: &Path) -> Self {
        self.command.arg("--output").arg(file);
        self
    }

    /// Runs it. A connection that fails is not an error here: [`Fetched::exit`] tells.
    pub fn run(mut self) -> Result<Fetched> {
        const MARK: &str = "\n@@";
        self.command.args([
            "--write-out",
            &format!("{MARK}%{{http_code}} %{{speed_download}} %{{speed_upload}} %{{time_total}}"),
            &self.url,
        ]);
        let Output {
            status,
            stdout,
            stderr,
        } = output(&mut self.command)?;
        let text = String::from_utf8_lossy(&stdout);
        let (body, numbers) = text.rsplit_once(MARK).unwrap_or((&text, ""));
        let mut numbers = numbers
            .split(' ')
            .map(|number| number.parse::<f64>().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        let http = next();
        Ok(Fetched {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "three digits"
            )]
            status: http as u16,
            body: body.to_owned(),
            exit: status.code().unwrap_or(-1),
            error: String::from_utf8_lossy(&stderr).trim().to_owned(),
            download_speed: next(),
            upload_speed: next(),
            seconds: next(),
            command: describe(&self.command),
        })
    }

    /// Runs it and parses a JSON body; anything but status 200 is an error.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let fetched = self.run()?;
        let what = || {
            format!(
                "`{}` (exit {}, {})",
                fetched.command, fetched.exit, fetched.error
            )
        };
        if fetched.status != 200 {
            return Err(Error::Unintelligible {
                what: what(),
                text: fetched.body.clone(),
            });
        }
        serde_json::from_str(&fetched.body).map_err(|error| Error::Unintelligible {
            what: format!("{}: {error}", what()),
            text: fetched.body.clone(),
        })
    }
}

/// Sends a request through `openssl s_client` and returns what it wrote, its own words included.
pub fn openssl(
    namespace: &Namespace,
    pki: &Pki,
    name: &str,
    address: SocketAddr,
    more: &[&str],
) -> Result<String> {
    let mut command = namespace.command("timeout")?;
    command.arg("30").arg(command::find("openssl")?);
    command.args([
        "s_client",
        "-connect",
        &address.to_string(),
        "-servername",
        name,
        "-verify_return_error",
    ]);
    command
        .args(["-ign_eof", "-CAfile"])
        .arg(&pki.authority)
        .args(more);
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    command::run_with_input(&mut command, &request)
}

const PYTHON: &str = r#"
import json, socket, ssl, sys
host, port, name, authority, path = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
with socket.create_connection((host, int(port)), timeout=30) as raw:
    with context.wrap_socket(raw, server_hostname=name) as tls:
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
sys.stdout.write(answer.split(b"\r\n\r\n", 1)[1].decode())
"#;

/// Fetches a path with Python's `ssl`.
pub fn python(
    namespace: &Namespace,
    pki: &Pki,
    name: &str,
    address: SocketAddr,
    path: &str,
) -> Result<String> {
    let mut command = namespace.command("python3")?;
    command.args([
        "-c",
        PYTHON,
        &address.ip().to_string(),
        &address.port().to_string(),
        name,
    ]);
    run(command.arg(&pki.authority).arg(path))
}

const JAVA: &str = r#"
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.List;
import javax.net.ssl.*;

class Fetch {
    public static void main(String[] a) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var in = Files.newInputStream(Path.of(a[3]))) {
            store.setCertificateEntry("lab", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        var raw = new Socket(a[0], Integer.parseInt(a[1]));
        raw.setSoTimeout(30000);
        try (var tls = (SSLSocket) context.getSocketFactory().createSocket(raw, a[2], raw.getPort(), true)) {
            var parameters = tls.getSSLParameters();
            parameters.setServerNames(List.of(new SNIHostName(a[2])));
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            tls.setSSLParameters(parameters);
            var request = "GET " + a[4] + " HTTP/1.1\r\nHost: " + a[2] + "\r\nConnection: close\r\n\r\n";
            tls.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
            var answer = new String(tls.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            System.out.print(answer.split("\r\n\r\n", 2)[1]);
        }
    }
}
"#;

/// Whether this machine can run a single-file Java program.
#[must_use]
pub fn has_java() -> bool {
    command::find("java").is_ok_and(|java| {
        // Since Java 11 `java File.java` compiles and runs, but only where the compiler is there.
        let listing = output(Command::new(java).arg("--list-modules"));
        listing
            .is_ok_and(|listing| String::from_utf8_lossy(&listing.stdout).contains("jdk.compiler"))
    })
}

/// Fetches a path with Java's `SSLSocket`.
pub fn java(
    namespace: &Namespace,
    pki: &Pki,
    name: &str,
    address: SocketAddr,
    path: &str,
) -> Result<String> {
    let source = pki.authority.with_file_name("Fetch.java");
    std::fs::write(&source, JAVA).map_err(|source_error| Error::Io {
        what: format!("writing {}", source.display()),
        source: source_error,
    })?;
    let mut command = namespace.command("java")?;
    command
        .args(["-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg(&source);
    command.args([&address.ip().to_string(), &address.port().to_string(), name]);
    run(command.arg(&pki.authority).arg(path))
}
