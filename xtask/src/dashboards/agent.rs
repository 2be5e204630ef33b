// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agents themselves: whether what the other dashboards show is all there is, and what the watching costs.

use anyhow::Result;

use super::dashboard::{Dashboard, Row};
use super::field::{Colour, Link, Override, Unit, Words};
use super::panel::Panel;
use super::query::{ALL, Query, happened, increase, of, rate, step_increase};
use super::runbooks::Runbooks;
use super::variable::Variable;

pub(super) fn dashboard(runbooks: &Runbooks) -> Result<Dashboard> {
    Ok(Dashboard {
        uid: "migscope-agent",
        title: "migscope / Agent",
        description: "The agents themselves: whether they see all there is, and what it costs.",
        last: "6h",
        variables: vec![Variable::datasource(), Variable::job(), Variable::instance()],
        annotations: Vec::new(),
        rows: vec![
            Row::open("Can what is shown be trusted?", trust()),
            Row::open("What is missing", missing(runbooks)?),
            Row::open("What it hears", hears()),
            Row::open("What the probes cost", probes()),
            Row::open("What the process takes", process()),
        ],
    })
}

fn trust() -> Vec<Panel> {
    let up = of("up", "");
    let attached = of("migscope_probe_attached", "");
    let stat = |title, description, expr: String, step: Colour| {
        Panel::stat(title, description)
            .query(Query::at_the_end(expr))
            .unit(Unit::Count)
            .decimals(0)
            .steps(Colour::Text, &[(0.5, step)])
            .size(4, 4)
    };
    vec![
        stat("Agents that answer", "Of those that Prometheus asks.", format!("sum({up})"), Colour::Green)
            .nothing("none scraped"),
        stat(
            "Agents that do not answer",
            "Of their hosts nothing is known.",
            format!("count({up}) - sum({up})"),
            Colour::Red,
        )
        .nothing("none scraped"),
        stat(
            "Probes missing",
            "Probes that are not attached, on all hosts. What they would tell is unknown there, not zero.",
            format!("count({attached}) - sum({attached})"),
            Colour::Orange,
        )
        .nothing("not told"),
        stat(
            "Events lost",
            "Events that did not reach the agents whole, in the time that is shown. Migrations that were under way then are marked as not exact.",
            format!("sum({})", increase("migscope_events_lost_total", "")),
            Colour::Red,
        )
        .nothing("not told"),
        stat(
            "Series refused",
            "Updates of series that were one too many for their family, in the time that is shown. Absent while nothing was refused.",
            format!("sum({})", happened("migscope_series_refused_total", "", ALL)),
            Colour::Orange,
        )
        .nothing("none refused"),
        stat(
            "Restarts",
            "Of the agents, in the time that is shown. A counter begins anew then, and sessions that were under way are not exact.",
            format!("sum(changes({}[$__range]))", of("process_start_time_seconds", "")),
            Colour::Orange,
        )
        .nothing("not told"),
    ]
}

fn missing(runbooks: &Runbooks) -> Result<Vec<Panel>> {
    let attached = of("migscope_probe_attached", "");
    let lost = step_increase("migscope_events_lost_total", "");
    let probe = runbooks.link("MigscopeProbeMissing")?;
    let events = runbooks.link("MigscopeEventsLost")?;
    Ok(vec![
        Panel::table(
            "Agents",
            "Each agent that answers, its version, and since when it runs.",
        )
        .query(Query::table(format!(
            "1000 * {} * on (job, instance) group_left (version) {}",
            of("process_start_time_seconds", ""),
            of("migscope_build_info", "")
        )))
        .columns(&[("instance", "Host"), ("version", "Version"), ("Value", "Runs since")])
        .largest_first("Runs since")
        .nothing("-")
        .with(Override::named("Runs since").unit(Unit::Time).width(170))
        .with(Override::named("Host").links(&[Link::agent_of_row()]))
        .size(8, 8),
        Panel::table(
            "Probes that are missing",
            "`migscope check` on the host says why, and what would mend it. A probe whose module is not loaded misses nothing and is not here.",
        )
        .query(Query::table(format!("{attached} == 0")))
        .columns(&[("instance", "Host"), ("probe", "Probe")])
        .smallest_first("Host")
        .nothing("-")
        .with(Override::named("Probe").links(&[probe]))
        .with(Override::named("Host").links(&[Link::agent_of_row()]))
        .size(8, 8),
        Panel::time_series(
            "Events lost, by reason",
            "After one, states are unknown until they are told again, and counters may be too small.",
        )
        .query(Query::over_time(format!("sum by (instance, reason) ({lost})")).legend("{{reason}}, {{instance}}"))
        .unit(Unit::Count)
        .stacked_bars()
        .links(&[events, Link::agent_of_series()])
        .nothing("not told")
        .size(8, 8),
        Panel::timeline(
            "Agents that answer, over time",
            "As Prometheus sees it.",
        )
        .query(Query::over_time(of("up", "")).legend("{{instance}}"))
        .words(Words::of([(1, "answers", Colour::Green), (0, "silent", Colour::Red)]))
        .links(&[Link::agent_of_series()])
        .nothing("none scraped")
        .size(24, 6),
    ])
}

fn hears() -> Vec<Panel> {
    let events = rate("migscope_events_total", "");
    let records = rate("migscope_records_total", "");
    let full =
        format!("{} / {}", of("migscope_map_entries", ""), of("migscope_map_capacity_entries", ""));
    vec![
        Panel::time_series(
            "Events that the probes saw, by kind",
            "Absent while the probe is missing.",
        )
        .query(Query::over_time(format!("sum by (kind) ({events})")).legend("{{kind}}"))
        .unit(Unit::CountPerSecond)
        .size(8, 8),
        Panel::time_series(
            "Records taken in, by kind",
            "Rare and exact things: changes of state, queries, errors. The rest is added up in the kernel.",
        )
        .query(Query::over_time(format!("sum by (kind) ({records})")).legend("{{kind}}"))
        .unit(Unit::CountPerSecond)
        .nothing("none yet")
        .size(8, 8),
        Panel::time_series(
            "How full the maps of the probes are",
            "What comes when one is full is lost, with the reason map_full.",
        )
        .query(Query::over_time(full).legend("{{map}}, {{instance}}"))
        .unit(Unit::Ratio)
        .max(1.0)
        .limits(Colour::Green, &[(0.8, Colour::Orange), (0.95, Colour::Red)])
        .nothing("not told")
        .size(8, 8),
    ]
}

fn probes() -> Vec<Panel> {
    let seconds = rate("migscope_bpf_program_run_seconds_total", "");
    let runs = rate("migscope_bpf_program_runs_total", "");
    let uncounted = "not counted by this kernel";
    vec![
        Panel::time_series(
            "CPU time in the probes, by host",
            "Of one CPU. Absent where the kernel does not count.",
        )
        .query(Query::over_time(format!("sum by (instance) ({seconds})")).legend("{{instance}}"))
        .unit(Unit::Ratio)
        .nothing(uncounted)
        .links(&[Link::agent_of_series()])
        .size(8, 8),
        Panel::time_series(
            "Runs of the probes, by program",
            "Each event that a probe looks at is one run, also those of devices that do not migrate.",
        )
        .query(Query::over_time(format!("sum by (program) ({runs})")).legend("{{program}}"))
        .unit(Unit::CountPerSecond)
        .nothing(uncounted)
        .size(8, 8),
        Panel::time_series(
            "Time of one run, by program",
            "The mean. It comes on top of what the device's client waits for.",
        )
        .query(
            Query::over_time(format!("sum by (program) ({seconds}) / sum by (program) ({runs})"))
                .legend("{{program}}"),
        )
        .unit(Unit::Seconds)
        .nothing(uncounted)
        .size(8, 8),
    ]
}

fn process() -> Vec<Panel> {
    let series = |title, description, expr: String, unit| {
        Panel::time_series(title, description)
            .query(Query::over_time(expr).legend("{{instance}}"))
            .unit(unit)
            .links(&[Link::agent_of_series()])
            .nothing("not told")
            .size(6, 7)
    };
    let evicted = step_increase("migscope_series_evicted_total", "");
    let scrapes = rate("migscope_scrapes_total", "");
    vec![
        series(
            "CPU",
            "Of one CPU, without the probes: those run in whoever caused the event.",
            rate("process_cpu_seconds_total", ""),
            Unit::Ratio,
        ),
        series(
            "Memory",
            "Resident. It grows with the devices that are seen, up to a bound.",
            of("process_resident_memory_bytes", ""),
            Unit::Bytes,
        ),
        series(
            "Open files",
            "Of those that the process may have open.",
            format!("{} / {}", of("process_open_fds", ""), of("process_max_fds", "")),
            Unit::Ratio,
        ),
        series("Threads", "Of the process.", of("process_threads", ""), Unit::Count),
        series(
            "Series kept",
            "A histogram with all its buckets counts as one.",
            of("migscope_series", ""),
            Unit::Count,
        ),
        series(
            "Series that ended",
            "Because their device was closed long ago (--series.keep).",
            evicted,
            Unit::Count,
        ),
        series(
            "Time to write a scrape",
            "Of the scrape before the last; nothing waits for a device or a map in it.",
            of("migscope_scrape_duration_seconds", ""),
            Unit::Seconds,
        ),
        series(
            "Scrapes answered",
            "By all who ask. More than Prometheus' own: somebody else asks, too.",
            format!("sum by (instance) ({scrapes})"),
            Unit::CountPerSecond,
        ),
    ]
}
