// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may see what the agent shows: TLS, passwords, client certificates, sockets; and what happens when that changes.

mod support;

use rustix::process::Signal;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use support::{
    Agent,
    certificate::{Authority, replace},
    client, migscope,
};

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// A folder with a web configuration and a certificate for `localhost`.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Site {
    fn new(text: &str) -> Self {
        let site =
            Self { folder: tempfile::tempdir().expect("a folder"), authority: Authority::new() };
        site.authority.sign("localhost").write(site.folder.path());
        replace(&site.folder.path().join("ca.crt"), &site.authority.pem());
        site.configure(text);
        site
    }

    fn configure(&self, text: &str) {
        replace(&self.config(), text);
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn agent(&self) -> Agent {
        let config = self.config();
        Agent::start(&["--web.config.file", config.to_str().expect("text")])
    }

    fn get(&self, address: SocketAddr, headers: &[String]) -> (u16, String, String) {
        let stream = client::tls(address, &self.authority.der(), None).expect("a handshake");
        client::get(stream, "/metrics", headers)
    }
}

fn users(list: &[(&str, &str)]) -> String {
    let line = |(user, password): &(&str, &str)| {
        format!("  {user}: \"{}\"\n", bcrypt::hash(password, 5).expect("hashed"))
    };
    format!("basic_auth_users:\n{}", list.iter().map(line).collect::<String>())
}

#[test]
fn https_with_a_password_lets_in_who_has_it_and_nobody_else() {
    let site = Site::new(&(TLS.to_owned() + &users(&[("alice", "open"), ("bob", "sesame")])));
    let agent = site.agent();
    let address = agent.address();
    for _ in 0..2 {
        assert_eq!(site.get(address, &[client::password("alice", "open")]).0, 200);
        for wrong in [
            vec![],
            vec![client::password("alice", "sesame")],
            vec![client::password("alice", "")],
            vec![client::password("nobody", "open")],
            vec!["Authorization: Bearer x".to_owned()],
        ] {
            let (status, head, body) = site.get(address, &wrong);
            assert_eq!(status, 401, "{wrong:?}");
            assert!(head.contains("www-authenticate: basic"), "{head}");
            assert!(!body.contains("migscope_"), "{body}");
        }
    }
    assert_eq!(site.get(address, &[client::password("bob", "sesame")]).0, 200);

    // Plain HTTP on the same port gets no answer with anything in it.
    let mut plain = client::tcp(address);
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));

    let (code, log) = agent.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    for secret in ["open", "sesame", "$2b$", "BEGIN"] {
        let logged = log.lines().any(|line| line.contains(secret) && !line.contains("listen"));
        assert!(!logged, "{secret} is in the log: {log}");
    }
}

#[test]
fn a_new_certificate_is_served_without_a_restart_and_without_a_signal() {
    let site = Site::new(TLS);
    let agent = site.agent();
    assert_eq!(site.get(agent.address(), &[]).0, 200);
    let other = Site::new(TLS);
    for name in ["server.crt", "server.key"] {
        let text = std::fs::read_to_string(other.folder.path().join(name)).expect("there");
        replace(&site.folder.path().join(name), &text);
    }
    assert_eq!(other.get(agent.address(), &[]).0, 200, "the new authority is the one to trust");
    let old = client::tls(agent.address(), &site.authority.der(), None);
    assert!(old.is_err(), "and the old one is not");
}

#[test]
fn a_broken_configuration_keeps_the_old_and_says_so_loudly() {
    let site = Site::new(&users(&[("alice", "open")]));
    let mut agent = site.agent();
    let status = |password| {
        let headers = [client::password("alice", password)];
        client::get(client::tcp(agent.address()), "/metrics", &headers).0
    };
    assert_eq!(status("open"), 200);
    site.configure("basic_auth_users:\n  alice: hunter2\n");
    assert_eq!((status("open"), status("hunter2")), (200, 401));
    site.configure("");
    assert_eq!(client::get(client::tcp(agent.address()), "/metrics", &[]).0, 401);
    site.configure(&users(&[("alice", "shut")]));
    assert_eq!((status("open"), status("shut")), (401, 200));
    let line = agent.hear("goes on holding");
    assert!(line.contains("\"level\":\"ERROR\"") && line.contains("alice"), "{line}");
    let line = agent.hear("goes on holding");
    assert!(line.contains("no longer asks for passwords"), "{line}");
    agent.hear("was read again");
    assert!(!agent.heard.contains("hunter2"), "{}", agent.heard);
}

#[test]
fn a_client_has_to_show_a_certificate_where_one_is_asked_for() {
    let asked = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let site = Site::new(&(TLS.to_owned() + asked));
    let agent = site.agent();
    let authority = site.authority.der();
    let status = |identity| {
        let mut stream = client::tls(agent.address(), &authority, identity).ok()?;
        // In TLS 1.3 a client learns with its first reading that it was refused.
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse::<u16>().ok()
    };
    assert_eq!(status(Some(site.authority.sign("client").identity())), Some(200));
    assert_eq!(status(Some(Authority::new().sign("client").identity())), None, "a stranger's");
    assert_eq!(status(None), None);
}

#[test]
fn headers_of_the_configuration_are_on_every_answer() {
    let text = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    \
                Strict-Transport-Security: max-age=1\n";
    let site = Site::new(text);
    let agent = site.agent();
    for path in ["/metrics", "/nothing"] {
        let (_, head, _) = agent.get(path);
        assert!(head.contains("x-frame-options: deny"), "{head}");
        assert!(head.contains("strict-transport-security: max-age=1"), "{head}");
    }
}

/// curl, an independent client, asking for `path`.
fn curl(site: &Site, address: SocketAddr, path: &str, words: &[&str]) -> Command {
    let authority = site.folder.path().join("ca.crt");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--cacert"]).arg(authority);
    command.args(["--resolve", &format!("localhost:{}:127.0.0.1", address.port())]);
    command.args(words).arg(format!("https://localhost:{}{path}", address.port()));
    command
}

/// What it gets of the metrics.
fn curl_metrics(site: &Site, address: SocketAddr, words: &[&str]) -> Option<Output> {
    match curl(site, address, "/metrics", words).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("not run: curl: {error}");
            None
        }
    }
}

#[test]
fn http2_is_spoken_over_tls_unless_it_is_switched_off() {
    let site = Site::new(TLS);
    let off = Site::new(&(TLS.to_owned() + "http_server_config: {http2: false}\n"));
    for (site, version) in [(site, "2"), (off, "1.1")] {
        let agent = site.agent();
        let words = ["--write-out", "\n%{http_version}"];
        let Some(output) = curl_metrics(&site, agent.address(), &words) else { return };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.lines().last(), Some(version), "{output:?}");
        assert!(text.contains("migscope_build_info"), "{text}");
    }
}

#[test]
fn a_stop_lets_streams_of_either_version_end_by_themselves() {
    let site = Site::new(TLS);
    for (version, told) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let agent = site.agent();
        let words = [version, "--no-buffer", "--include"];
        let mut command = curl(&site, agent.address(), "/api/v1/events", &words);
        let mut child = match command.stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return eprintln!("not run: curl: {error}"),
        };
        let mut stream = BufReader::new(child.stdout.take().expect("piped"));
        let mut heard = String::new();
        while !heard.contains("event: snapshot") {
            assert_ne!(stream.read_line(&mut heard).expect("text"), 0, "{version}: {heard}");
        }
        assert!(heard.starts_with(told), "{version}: {heard}");
        // Who asks nothing is not waited for.
        let _idle = client::tls(agent.address(), &site.authority.der(), None).expect("a handshake");
        let (code, log) = agent.stop(Signal::TERM);
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("cut off"), "{version}: {log}");
        stream.read_to_string(&mut heard).expect("text");
        assert!(heard.contains("event: stopping"), "{version}: {heard}");
        // curl knows an end from a connection that broke.
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{version}");
    }
}

#[test]
fn versions_and_suites_are_those_of_the_configuration() {
    let tls13 = Site::new(&(TLS.to_owned() + "  min_version: TLS13\n"));
    let suite =
        "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n";
    let tls12 = Site::new(&(TLS.to_owned() + suite));
    for (site, words, works) in [
        (&tls13, &["--tls-max", "1.2"][..], false),
        (&tls13, &["--tlsv1.3"], true),
        (&tls12, &["--tlsv1.3"], false),
        (&tls12, &["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"], false),
        (&tls12, &["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"], true),
    ] {
        let agent = site.agent();
        let Some(output) = curl_metrics(site, agent.address(), words) else { return };
        assert_eq!(output.status.success(), works, "{words:?}: {output:?}");
    }
}

#[test]
fn a_wrong_web_configuration_is_told_before_anything_starts() {
    let site = Site::new(&(TLS.to_owned() + "  min_version: TLS10\n"));
    let config = site.config();
    let config = config.to_str().expect("text");
    for more in [&[][..], &["--config.check"]] {
        let mut command = migscope(&["agent", "--web.config.file", config]);
        let output = command.args(more).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        for word in ["web.yml", "min_version", "TLS10", "TLS12"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn it_listens_on_several_addresses_and_on_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.sock");
    let unix = format!("unix:{}", path.display());
    let mut command = migscope(&["agent"]);
    for address in ["127.0.0.1:0", "127.0.0.1:0", &unix] {
        command.args(["--web.listen-address", address]);
    }
    let agent = Agent::spawn(&mut command, 3);
    assert_eq!(agent.addresses[2], unix);
    for address in &agent.addresses[..2] {
        let stream = client::tcp(address.parse().expect("an address"));
        assert_eq!(client::get(stream, "/healthz", &[]).0, 200);
    }
    let stream = UnixStream::connect(&path).expect("it listens");
    assert_eq!(client::get(stream, "/healthz", &[]).0, 200);
    assert_eq!(agent.stop(Signal::TERM).0, Some(0));
    assert!(!path.exists(), "the socket's file is gone with the agent");
}

#[test]
fn a_rate_limit_is_kept() {
    let site = Site::new("rate_limit:\n  interval: 1000h\n  burst: 2\n");
    let agent = site.agent();
    let statuses: Vec<_> = (0..4).map(|_| agent.get("/healthz").0).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
}
