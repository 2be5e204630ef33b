// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live page in headless Chromium, before an agent that is told what to show.
//!
//! Left out of a plain `cargo test` (`test = false` in the manifest): it needs Chromium. `cargo xtask page` and `cargo xtask test`
//! run it, or say that they cannot.

mod chromium;
#[expect(dead_code, reason = "streams are not stopped here")]
mod scripted;

use chromium::Chromium;
use migscope::device_key::DeviceKey;
use migscope::state::State;
use migscope_abi::{probe::Probe, ring::DeviceSums};
use scripted::{
    Scripted, blind,
    migration::{DESTINATION, SOURCE},
    moving,
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};
use tokio::runtime::Runtime;

/// A device that does not migrate.
const THIRD: DeviceKey = DeviceKey::pci(0, 0, 0x12 << 3);

/// An agent that serves what it was told.
struct Server {
    scripted: Scripted,
    address: SocketAddr,
    /// Dropped with all that it serves.
    _runtime: Runtime,
}

impl Server {
    fn start(scripted: Scripted, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let bind = tokio::net::TcpListener::bind(address);
        let listener = runtime.block_on(bind).expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = scripted.router.clone();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { scripted, address, _runtime: runtime }
    }

    fn any_port(scripted: Scripted) -> Self {
        Self::start(scripted, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// `MIGSCOPE_SCREENSHOTS` names a folder for pictures of what the tests see.
fn picture(page: &mut Chromium, name: &str) {
    if let Some(folder) = std::env::var_os("MIGSCOPE_SCREENSHOTS") {
        page.screenshot(&PathBuf::from(folder).join(format!("{name}.png")));
    }
}

#[test]
fn an_empty_page_says_what_to_do_and_what_is_missing() {
    let server = Server::any_port(Scripted::new());
    let mut page = Chromium::start();
    page.look(1100, 800, "light");
    page.open(&server.url());
    page.wait_for_text("#connection-state", "live");
    page.wait_for("!document.querySelector('#empty').hidden");
    assert!(page.text("#empty").contains("cargo xtask demo --keep"));
    assert_eq!(page.evaluate("document.querySelector('#missing').hidden"), true, "not tried yet");
    server.scripted.tell(|observer| {
        observer.probes(blind("vfio_mediate is not loaded", "insmod vfio_mediate.ko"));
    });
    page.wait_for_text("#missing-probes", "vfio_mediate is not loaded");
    assert!(page.text("#missing-probes").contains("To mend it: insmod vfio_mediate.ko"));
    let none = format!("0 of {} probes attached", Probe::COUNT);
    assert!(page.text("#probes").contains(&none), "{}", page.text("#probes"));
    picture(&mut page, "empty");
    page.was_content(&server.url());
}

#[test]
fn a_migration_is_followed_without_a_reload() {
    let server = Server::any_port(Scripted::watching());
    let told = &server.scripted;
    told.change(DESTINATION, State::Stopped, State::Running, DeviceSums::default());
    told.name(DESTINATION, "guest-b");
    let mut page = Chromium::start();
    page.open(&server.url());
    let card = |address: &str, what: &str| format!("[data-device='{address}'] {what}");
    page.wait_for_text(&card("0000:00:11.0", ".pill"), "running");
    page.evaluate("window.opened = 'once'");

    told.change(SOURCE, State::Running, State::PreCopy, DeviceSums::default());
    told.name(SOURCE, "guest-b");
    page.wait_for_text(&card("0000:00:10.0", ".pill"), "pre_copy");
    assert_eq!(
        page.text(&card("0000:00:10.0", "[data-field='pending']")),
        "unknown",
        "what was not read is not 0"
    );
    let bar = card("0000:00:10.0", "[role='progressbar']");
    let now = format!("document.querySelector(\"{bar}\").getAttribute('aria-valuenow')");
    assert!(page.evaluate(&now).is_null(), "no progress is not 0 %");
    assert!(page.text("#news").contains("0000:00:10.0"), "{}", page.text("#news"));
    for (moved, pending, shown) in [(1 << 20, 3 << 20, "25"), (3 << 20, 1 << 20, "75")] {
        told.sums(SOURCE, State::PreCopy, moving(moved, pending));
        page.wait_for(&format!("{now} === '{shown}'"));
    }
    assert_eq!(page.text(&card("0000:00:10.0", "[data-field='pending']")), "1.00 MiB");
    assert_eq!(page.text(&card("0000:00:10.0", "[data-field='moved']")), "3.00 MiB");
    page.wait_for_text(&card("0000:00:10.0", "[data-field='throughput']"), "/s");
    page.wait_for("document.querySelector('.line.pending[d*=H]')");

    told.change(SOURCE, State::PreCopy, State::StopAndCopy, moving(3 << 20, 1 << 20));
    page.wait_for_text(&card("0000:00:10.0", ".pill"), "stop_and_copy");
    let start = DeviceSums::default();
    told.change(DESTINATION, State::Running, State::Resuming, start);
    told.change(SOURCE, State::StopAndCopy, State::Stopped, moving(4 << 20, 0));
    let resumed = DeviceSums { data_bytes: [0, 4 << 20], iterations: [0, 9], ..start };
    told.change(DESTINATION, State::Resuming, State::Running, resumed);
    page.wait_for_text(&card("0000:00:10.0", ".pill"), "stopped");
    page.wait_for_text(&card("0000:00:10.0", ".session"), "completed");
    page.wait_for_text(&card("0000:00:10.0", ".downtime"), "both ends");
    page.wait_for("document.querySelectorAll('#ended tr[data-session]').length === 2");
    assert!(page.text("#machines .migrations").contains("1 device"));

    // By keyboard: the table's first button, opened and closed.
    page.evaluate("document.querySelector('[data-session=\"1\"] button').focus()");
    page.press("Enter");
    page.wait_for_text("#details-1", "running → pre_copy");
    assert!(page.text("#details-1").contains("stop_and_copy → stopped"));
    page.press("Enter");
    page.wait_for("document.querySelector('#details-1').hidden");

    assert_eq!(page.evaluate("window.opened"), "once");
    page.was_content(&server.url());
}

#[test]
fn among_many_devices_those_that_migrate_are_named_above_all() {
    let server = Server::any_port(Scripted::watching());
    let told = &server.scripted;
    told.change(SOURCE, State::Running, State::PreCopy, DeviceSums::default());
    told.sums(SOURCE, State::PreCopy, moving(3 << 20, 1 << 20));
    told.change(DESTINATION, State::Stopped, State::Running, DeviceSums::default());
    let mut page = Chromium::start();
    page.open(&server.url());
    page.wait_for_text("[data-device='0000:00:11.0'] .pill", "running");
    let hidden = "document.querySelector('#migrating').hidden";
    assert_eq!(page.evaluate(hidden), true, "two cards say it themselves");

    told.change(THIRD, State::Stopped, State::Running, DeviceSums::default());
    page.wait_for(&format!("!{hidden}"));
    let line = page.text("#migrating-devices");
    assert!(line.contains("pre_copy") && line.contains("source, 75 %"), "{line}");
    assert!(!line.contains("0000:00:11.0") && !line.contains("0000:00:12.0"), "{line}");
    page.evaluate("document.querySelector('#migrating a').click()");
    let reached = "document.querySelector('[data-device=\"0000:00:10.0\"] :target') !== null";
    assert_eq!(page.evaluate(reached), true, "the link leads to the card");

    told.change(SOURCE, State::PreCopy, State::Running, moving(3 << 20, 1 << 20));
    page.wait_for(hidden);
    assert_eq!(page.text("#migrating-devices"), "");
    page.was_content(&server.url());
}

#[test]
fn names_from_outside_are_never_markup() {
    let server = Server::any_port(Scripted::watching());
    let name = "<img src=x onerror=window.taken=1><b>bold</b>";
    server.scripted.migrate();
    for device in [SOURCE, DESTINATION] {
        server.scripted.name(device, name);
    }
    let why = format!("{name} is not loaded");
    server.scripted.tell(|observer| observer.probes(blind(&why, name)));
    let mut page = Chromium::start();
    page.open(&server.url());
    page.wait_for_text("#machines h2", name);
    page.wait_for_text("#missing-probes", &why);
    assert_eq!(page.evaluate("document.querySelectorAll('main img, h2 b, .remedy b').length"), 0);
    assert!(page.evaluate("window.taken").is_null());
    page.was_content(&server.url());
}

#[test]
fn an_agent_that_is_gone_is_told_and_one_that_comes_back_is_shown() {
    let server = Server::any_port(Scripted::watching());
    server.scripted.migrate();
    let (address, url) = (server.address, server.url());
    let mut page = Chromium::start();
    page.open(&url);
    page.wait_for_text("#connection-state", "live");
    page.wait_for("document.querySelectorAll('#ended tr[data-session]').length === 2");
    drop(server);
    page.wait_for("document.body.classList.contains('stale')");
    page.wait_for_text("#connection-state", "agent gone");
    page.wait_for_text("#connection-detail", " old");
    let before = page.text("[data-field='in-state']");
    page.evaluate("new Promise((done) => setTimeout(done, 600))");
    assert_eq!(page.text("[data-field='in-state']"), before, "what is stale does not tick");
    picture(&mut page, "gone");

    let server = Server::start(Scripted::watching(), address);
    page.wait_for_text("#connection-state", "live");
    page.wait_for(
        "!document.querySelector('#empty').hidden && document.querySelector('#sessions').hidden",
    );
    server.scripted.migrate();
    page.wait_for_text("#ended", "completed");
    assert_eq!(page.evaluate("document.body.classList.contains('stale')"), false);
}

#[test]
fn when_all_streams_are_taken_the_page_asks_instead() {
    let server = Server::any_port(Scripted::watching());
    let mut taken = Vec::new();
    for _ in 0..migscope::http::events::MAX_STREAMS {
        let mut stream = TcpStream::connect(server.address).expect("connected");
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        stream.read_exact(&mut [0; 64]).expect("it has begun");
        taken.push(stream);
    }
    let mut page = Chromium::start();
    page.open(&server.url());
    page.wait_for_text("#connection-state", "polling");
    server.scripted.migrate();
    page.wait_for_text("#ended", "completed");
    assert!(page.text("#connection-detail").contains("all streams are taken"));
    drop(taken);
    page.wait_for_text("#connection-state", "live");
}

/// What cannot be read: texts whose contrast to what they stand on is below 4.5 (WCAG 2.2, 1.4.3), and what is wider than the screen.
const UNREADABLE: &str = r"(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => {
    part /= 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let it = node; it; it = it.parentElement) {
      const colour = rgba(getComputedStyle(it).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba('Canvas');
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    texts += 1;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) bad.push(`${contrast.toFixed(2)}: ${walk.currentNode.textContent}`);
  }
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > innerWidth) bad.push(`${scrollWidth} wide on a screen of ${innerWidth}`);
  if (texts < 40) bad.push(`only ${texts} texts`);
  return bad;
})()";

#[test]
fn all_is_readable_on_any_screen_in_any_light() {
    let server = Server::any_port(Scripted::watching());
    server.scripted.migrate();
    server.scripted.change(SOURCE, State::Stopped, State::Running, DeviceSums::default());
    server.scripted.change(SOURCE, State::Running, State::PreCopy, moving(0, 0));
    server.scripted.sums(SOURCE, State::PreCopy, moving(4096, 1024));
    server.scripted.change(THIRD, State::Stopped, State::Running, DeviceSums::default());
    server.scripted.name(
        SOURCE,
        "a-machine-with-a-name-as-long-as-names-of-machines-are-in-large-installations-0001",
    );
    let mut page = Chromium::start();
    page.open(&server.url());
    page.wait_for_text("#ended", "completed");
    page.evaluate("document.querySelector('[data-session=\"1\"] button').click()");
    page.wait_for_text("#details-1", "pre_copy");
    for scheme in ["light", "dark"] {
        for (width, height) in
            [(320, 640), (390, 844), (780, 900), (1000, 900), (1280, 900), (2560, 1200)]
        {
            page.look(width, height, scheme);
            let bad = page.evaluate(UNREADABLE);
            picture(&mut page, &format!("readable-{scheme}-{width}"));
            assert_eq!(bad, serde_json::json!([]), "{scheme}, {width} pixels");
        }
    }
    page.was_content(&server.url());
}

/// The script's part alone, with outlooks as the agent gives them.
#[test]
fn a_verdict_is_told_in_words_and_leads_to_its_runbook() {
    let server = Server::any_port(Scripted::watching());
    let mut page = Chromium::start();
    page.open(&server.url());
    let told = |outlook: &str| {
        format!(
            "import('/static/verdict.js').then(({{ Verdict }}) => {{
               const verdict = new Verdict();
               verdict.update({outlook});
               return [verdict.node.hidden, verdict.node.textContent, verdict.node.querySelector('a')?.getAttribute('href')];
             }})"
        )
    };
    let nothing = page.evaluate(&told("undefined"));
    assert_eq!(nothing, serde_json::json!([true, "", null]), "nothing is claimed");
    let bad = page.evaluate(&told(
        "{ verdict: 'not_converging', remaining: null, downtime: { expected_ns: 3e8, low_ns: 2e8, high_ns: 5e8 },
           blocked: [{ reason: 'no_progress', explanation: 'no progress', runbook: 'VfioMigrationBlocked-no_progress.md' }, { reason: 'x', explanation: 'memory is <b>dirtied</b>', runbook: 'Y.md' }] }",
    ));
    assert_eq!(
        bad[1],
        "✕ does not converge; expected downtime 300 ms (200 ms to 500 ms)no progress – what to do\
         memory is <b>dirtied</b> – what to do"
    );
    assert_eq!(bad[2], "runbooks/VfioMigrationBlocked-no_progress");
    let good = page.evaluate(&told(
        "{ verdict: 'converging', remaining: { expected_ns: 12e9, low_ns: 9e9, high_ns: null }, blocked: [] }",
    ));
    assert_eq!(good[1], "✓ converges, ends in about 12.0 s (9.00 s or more)");
    let open = page.evaluate(&told(
        "{ verdict: 'unknown', remaining: { expected_ns: 12e9, low_ns: 9e9, high_ns: 20e9 }, blocked: [] }",
    ));
    assert_eq!(
        open[1],
        "? whether it converges cannot be told yet; if it does, it ends in about 12.0 s (9.00 s to 20.0 s)"
    );
    page.was_content(&server.url());
}

#[test]
fn a_runbook_opens_from_the_page() {
    let server = Server::any_port(Scripted::watching());
    let mut page = Chromium::start();
    page.look(900, 700, "dark");
    page.open(&server.url());
    page.evaluate("document.querySelector('a[href=\"runbooks/\"]').click()");
    page.wait_for_text("h1", "Runbooks");
    page.evaluate("document.querySelector('main a').click()");
    page.wait_for_text("main", "Meaning.");
    picture(&mut page, "runbook");
    page.evaluate("document.querySelector('nav a').click()");
    page.wait_for_text("#connection-state", "live");
    page.was_content(&server.url());
}
