// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A headless Chromium with one tab, driven over the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! It speaks over a pair of pipes (`--remote-debugging-pipe`: file descriptors 3 and 4, messages end with a zero byte), so that no
//! port is open, no websocket is needed, and Chromium ends when the test does.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// Far more than anything takes, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Everything that Chromium would do or fetch on its own is turned off.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];

/// Chromium and its tab.
pub(crate) struct Chromium {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    /// What went wrong in the page: exceptions, errors and warnings of the console.
    pub(crate) complaints: Vec<String>,
    /// Every address that was asked for.
    pub(crate) requests: Vec<String>,
    /// How often a document was loaded.
    pub(crate) loads: usize,
    /// Its profile, which goes with it.
    profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts it with an empty tab.
    pub(crate) fn start() -> Self {
        let program = PROGRAMS.into_iter().find(|name| on_path(name)).unwrap_or_else(|| {
            panic!("none of {PROGRAMS:?} is installed; `cargo xtask page` says so, too")
        });
        let profile = tempfile::tempdir().expect("a scratch folder");
        // The shell gives it its ends of the pipes as descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, from) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while stdout.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).expect("DevTools speak JSON");
                if sender.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut chromium = Self {
            child,
            to,
            from,
            last_id: 0,
            session: None,
            complaints: Vec::new(),
            requests: Vec::new(),
            loads: 0,
            profile,
        };
        let target = chromium.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = chromium.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        chromium.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            chromium.call(&format!("{domain}.enable"), json!({}));
        }
        chromium
    }

    /// Calls a method of the protocol and gives its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut text = message.to_string();
        text.push('\0');
        self.to.write_all(text.as_bytes()).expect("Chromium lives");
        loop {
            let mut message = self
                .from
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("no answer of Chromium to {method}: {error}"));
            if message["id"] == id {
                if !message["error"].is_null() {
                    return Err(message["error"].take());
                }
                return Ok(message["result"].take());
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => {
                self.complaints.push(parameters["exceptionDetails"].to_string());
            }
            "Runtime.consoleAPICalled"
                if ["error", "warning", "assert"]
                    .iter()
                    .any(|kind| parameters["type"] == *kind) =>
            {
                self.complaints.push(parameters["args"].to_string());
            }
            "Log.entryAdded"
                if ["error", "warning"]
                    .iter()
                    .any(|level| parameters["entry"]["level"] == *level) =>
            {
                self.complaints.push(parameters["entry"].to_string());
            }
            "Network.requestWillBeSent" => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            "Page.loadEventFired" => self.loads += 1,
            _ => {}
        }
    }

    /// Opens a page in the tab.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_for("document.readyState === 'complete'");
    }

    /// The value of an expression in the page; a promise is awaited.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", parameters);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].take()
    }

    /// Whether an expression is true; on a page that is just being left nothing is.
    fn holds(&mut self, expression: &str) -> bool {
        let parameters =
            json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        self.try_call("Runtime.evaluate", parameters)
            .is_ok_and(|answer| answer["result"]["value"] == true)
    }

    /// The text of the first element that a selector finds.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let found =
            self.evaluate(&format!("document.querySelector({})?.textContent", json!(selector)));
        found.as_str().unwrap_or_else(|| panic!("{selector} finds nothing")).to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.holds(expression) {
            if Instant::now() >= deadline {
                let page = self.evaluate("document.body.innerText");
                panic!(
                    "it did not come to be that {expression}; the page says:\n{page}\n{:?}",
                    self.complaints
                );
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until the text of an element contains another.
    pub(crate) fn wait_for_text(&mut self, selector: &str, text: &str) {
        self.wait_for(&format!(
            "document.querySelector({})?.textContent.includes({})",
            json!(selector),
            json!(text)
        ));
    }

    /// Presses and releases a key.
    pub(crate) fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Makes it a screen of this width in pixels, in a colour scheme: `dark` or `light`.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": feature}));
    }

    /// Takes a picture of the whole page.
    pub(crate) fn screenshot(&mut self, path: &Path) {
        // What was just changed has to be drawn first.
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))",
        );
        let taken = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        );
        let encoded = taken["data"].as_str().expect("a picture");
        fs::write(path, base64(encoded)).expect("a picture can be written");
    }

    /// Asserts that the page had nothing to complain of and asked nobody but its own server.
    pub(crate) fn was_content(&mut self, base: &str) {
        // What has happened so far is heard before this answer.
        self.evaluate("0");
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
        for url in &self.requests {
            assert!(url.starts_with(base) || url == "about:blank", "{url} is not of {base}");
        }
        assert!(!self.requests.is_empty());
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its profile is removed after it has ended, or it would write into what is being removed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.profile.path());
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Decodes what DevTools encoded (RFC 4648, 4).
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).expect("eight bits"));
        }
    }
    bytes
}
