// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live page in headless Chromium, before the agent in the guest, while a device migrates for real.
//!
//! `cargo xtask page` boots the guest and says in `MIGSCOPE_PAGE` where the agent's port came out, and in `MIGSCOPE_STAGE` where
//! commands are taken (tests/cases/src/stage.rs). Chromium runs on the host: in the emulated guest it would be too slow to follow.
//!
//! The picture of the README, dashboards/screenshots/live-page.png, is from here: `cargo xtask page --pictures DIR` makes it anew.

#[expect(dead_code, reason = "no keys are pressed here")]
mod chromium;

use chromium::Chromium;
use serde_json::Value;
use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

/// For the guest to boot and the agent to be ready.
const BOOT: Duration = Duration::from_secs(120);

const SOURCE: &str = "[data-device='0000:00:10.0']";
const DESTINATION: &str = "[data-device='0000:00:11.0']";

/// Keeps in `window.course` every state and every amount that the source's card has shown.
const WATCH: &str = "
window.course = { states: [], moved: [], pending: [], throughput: [], ticks: [] };
new MutationObserver(() => {
  const card = document.querySelector(\"[data-device='0000:00:10.0']\");
  if (!card) return;
  const note = (list, text) => { if (text && list.at(-1) !== text) list.push(text); };
  note(course.states, card.querySelector('.pill').dataset.state);
  for (const name of ['moved', 'pending', 'throughput']) note(course[name], card.querySelector(`[data-field=${name}]`).textContent);
  note(course.ticks, card.querySelector('[data-field=in-state]').textContent);
}).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
";

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `cargo xtask page` sets it"))
}

/// The commands that the guest takes.
struct Stage(BufReader<TcpStream>);

impl Stage {
    /// QEMU takes connections before the guest does, and drops them: so until one is greeted.
    fn wait(address: &str) -> Self {
        let deadline = Instant::now() + BOOT;
        loop {
            let mut greeting = String::new();
            if let Ok(stream) = TcpStream::connect(address) {
                let mut stream = BufReader::new(stream);
                if stream.read_line(&mut greeting).is_ok() && greeting == "ready\n" {
                    return Self(stream);
                }
            }
            assert!(Instant::now() < deadline, "the guest did not come up");
            sleep(Duration::from_millis(100));
        }
    }

    fn send(&mut self, command: &str) {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes()).expect("the stage listens");
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the stage answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

fn picture(page: &mut Chromium, name: &str, width: u32, height: u32, scheme: &str) {
    if let Some(folder) = env::var_os("MIGSCOPE_SCREENSHOTS") {
        page.look(width, height, scheme);
        page.screenshot(&PathBuf::from(folder).join(format!("{name}.png")));
    }
}

#[test]
fn a_real_migration_is_shown_while_it_runs_and_as_the_client_counted_it() {
    let url = variable("MIGSCOPE_PAGE");
    let mut stage = Stage::wait(&variable("MIGSCOPE_STAGE"));
    let mut page = Chromium::start();
    page.look(1180, 900, "light");
    page.open(&url);
    page.wait_for_text("#connection-state", "live");
    page.wait_for_text("#probes", " probes attached");
    page.wait_for("document.querySelector('#missing').hidden");
    page.wait_for("!document.querySelector('#empty').hidden");
    let loads = page.loads;
    page.evaluate(WATCH);

    stage.send("migrate 6");
    page.wait_for_text(&format!("{SOURCE} .pill"), "pre_copy");
    page.wait_for_text(&format!("{DESTINATION} .pill"), "resuming");
    page.wait_for("window.course.ticks.length > 5");
    picture(&mut page, "migrating-light", 1180, 900, "light");
    picture(&mut page, "migrating-dark", 1180, 900, "dark");
    picture(&mut page, "migrating-phone", 390, 844, "dark");
    let account = stage.answer();

    page.wait_for_text(&format!("{SOURCE} .session"), "completed");
    page.wait_for_text(&format!("{DESTINATION} .session"), "completed");
    page.wait_for_text(&format!("{SOURCE} .downtime"), "both ends");
    let course = page.evaluate("window.course");
    let states: Vec<_> =
        course["states"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let at = |state: &str| states.iter().position(|seen| *seen == state);
    assert!(at("pre_copy").is_some(), "{course}");
    assert!(at("pre_copy") < at("stopped") || at("pre_copy") < at("closed"), "{course}");
    assert!(course["moved"].as_array().is_some_and(|seen| seen.len() > 1), "{course}");

    // What the client of the migration counted, against what the page says; they share no code.
    let region = &account["source"];
    assert_eq!(account["verified"], true);
    let shown = page.text(&format!("{SOURCE} [data-field='pages']"));
    assert_eq!(shown.replace(',', ""), region["dirty"]["pages"].to_string());
    let shown = page.text(&format!("{SOURCE} [data-field='iterations']"));
    assert_eq!(shown.replace(',', ""), region["iterations"].to_string());
    let moved = region["data_bytes"].as_f64().expect("a number") / 1024.0;
    assert_eq!(page.text(&format!("{SOURCE} [data-field='moved']")), format!("{moved:.2} KiB"));
    assert!(!page.text("#ended").contains("not exact"));

    let row = "[...document.querySelectorAll('#ended tr[data-session]')].find((row) => row.textContent.includes('source'))";
    let toggle = format!("{row}.querySelector('button').click()");
    page.evaluate(&toggle);
    page.wait_for(&format!(
        "{row}.nextElementSibling.textContent.includes('pre_copy → stop_and_copy')"
    ));
    page.evaluate(&toggle);
    picture(&mut page, "completed-light", 1180, 900, "light");
    picture(&mut page, "completed-dark", 1180, 900, "dark");
    picture(&mut page, "completed-phone", 390, 844, "light");

    // Another one, over the cards of the first.
    stage.send("migrate 5");
    page.wait_for(&format!(
        "!document.querySelector(\"{SOURCE} .session\").innerText.includes('completed')"
    ));
    page.evaluate("new Promise((done) => setTimeout(done, 3500))");
    picture(&mut page, "live-page", 1180, 900, "light");
    stage.answer();
    page.wait_for("document.querySelectorAll('#ended tr[data-session]').length === 4");
    assert_eq!(page.loads, loads, "nothing was reloaded");
    page.was_content(&url);

    // Its stream is open: an agent that waited for it would take two seconds.
    stage.send("stop");
    let stopped_in_ns = stage.answer()["stopped_in_ns"].as_u64().expect("a number");
    println!("measured: agent_stop_with_an_open_stream {stopped_in_ns} ns");
    page.wait_for("document.body.classList.contains('stale')");
}
