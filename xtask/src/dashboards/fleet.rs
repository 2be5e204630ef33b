// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All migrations of all hosts: what runs, what ended and how, what is stuck and why, and what was slow.

use anyhow::Result;

use super::annotation::Annotation;
use super::dashboard::{Dashboard, Row};
use super::field::{Colour, Link, Override, Unit, Words, steps};
use super::panel::Panel;
use super::query::{
    DESTINATION, MIGRATING, Query, SOURCE, buckets, increase, mean, of, quantile, step_increase,
    while_in, with_machine,
};
use super::reason;
use super::runbooks::Runbooks;
use super::state;
use super::variable::Variable;

pub(super) fn dashboard(runbooks: &Runbooks) -> Result<Dashboard> {
    Ok(Dashboard {
        uid: "migscope-fleet",
        title: "migscope / Fleet",
        description: "Migrations of VFIO devices on all hosts: running, ended, blocked with the reasons, and the slowest.",
        last: "6h",
        variables: vec![
            Variable::datasource(),
            Variable::job(),
            Variable::instance(),
            Variable::one_of(
                "part",
                "Part of downtime",
                "Which part of the downtime the heat map and the quantiles are of",
                &[
                    "source",
                    "destination",
                    "total",
                    "stop",
                    "final_dirty",
                    "final_data",
                    "transfer_gap",
                    "load",
                    "start",
                ],
            ),
        ],
        annotations: Annotation::of_migrations("", ""),
        rows: vec![
            Row::open("Now, and in the time that is shown", counts()),
            Row::open("Under way", vec![under_way()]),
            Row::open("Blocked", blocked(runbooks)?),
            Row::open("Ended", ended()),
            Row::open("Downtime", downtime()),
            Row::open("The slowest", slowest()),
        ],
    })
}

fn counts() -> Vec<Panel> {
    let devices_in =
        |states| Query::at_the_end(format!("sum({})", of("vfio_migration_device_state", states)));
    let sources_ended = |result: &str| {
        let matchers = format!(r#"role="source", result="{result}""#);
        Query::at_the_end(format!("sum({})", increase("vfio_migration_sessions_total", &matchers)))
    };
    let stat = |title, description, query, step: Colour| {
        Panel::stat(title, description)
            .query(query)
            .unit(Unit::Count)
            .decimals(0)
            .steps(Colour::Text, &[(0.5, step)])
            .size(3, 4)
    };
    let blocked = of("vfio_migration_blocked", "");
    let up = of("up", "");
    vec![
        stat(
            "Sources",
            "Devices that are the source of a migration now: in pre_copy, pre_copy_p2p or stop_and_copy.",
            devices_in(SOURCE),
            Colour::Blue,
        )
        .nothing("no device seen"),
        stat(
            "Destinations",
            "Devices that are the destination of a migration now: in resuming.",
            devices_in(DESTINATION),
            Colour::Purple,
        )
        .nothing("no device seen"),
        stat(
            "Blocked",
            "Sources, and devices in error, with at least one reason for which the migration may not come to its end. Nothing is told while no migration runs.",
            Query::at_the_end(format!("sum(max by (job, instance, device) ({blocked}))")),
            Colour::Orange,
        )
        .nothing("no source runs")
        .links(&[Link::runbooks()]),
        stat(
            "In error",
            "Devices in the state error: their state is lost, and they serve nobody until they are reset.",
            devices_in(r#"state="error""#),
            Colour::Red,
        )
        .nothing("no device seen"),
        stat(
            "Completed",
            "Migrations of one device that were completed in the time that is shown, as their source saw it.",
            sources_ended("completed"),
            Colour::Green,
        ),
        stat(
            "Cancelled",
            "Migrations of one device that were called off in the time that is shown: by somebody, or by a VMM that could not go on.",
            sources_ended("cancelled"),
            Colour::Yellow,
        ),
        stat(
            "Failed",
            "Migrations of one device that failed in the time that is shown: the device failed, was reset, or was closed too early.",
            sources_ended("failed"),
            Colour::Red,
        )
        .links(&[Link::runbooks()]),
        stat(
            "Silent agents",
            "Agents that Prometheus asks and that do not answer. Of their hosts nothing is known, which is not the same as nothing to tell.",
            Query::at_the_end(format!("count({up}) - sum({up})")),
            Colour::Red,
        )
        .nothing("none scraped"),
    ]
}

/// One row for each device that migrates now.
fn under_way() -> Panel {
    let column = |expr: &str| {
        let labels = "job, instance, device, vm, vm_uuid";
        let told = format!("max by ({labels}) ({})", with_machine(expr, ""));
        Query::table(while_in(MIGRATING, &told))
    };
    let metric = |name| column(&of(name, ""));
    let reasons = format!("sum by (job, instance, device) ({})", of("vfio_migration_blocked", ""));
    let links =
        [Link::migration_of_row(), Link::device_of_row(), Link::migration_of_device_of_row()];
    Panel::table(
        "Migrations under way",
        "Each device that migrates now, at either end. Both ends of one migration have the same machine UUID: click on it. A dash is what is unknown, or not told at this end.",
    )
    .query(column(&format!("({})", state::number(""))))
    .query(metric("vfio_migration_pending_bytes"))
    .query(metric("vfio_migration_throughput_bytes_per_second"))
    .query(metric("vfio_migration_converging"))
    .query(metric("vfio_migration_estimated_remaining_seconds"))
    .query(metric("vfio_migration_estimated_downtime_seconds"))
    .query(column(&reasons))
    .columns(&[
        ("vm", "Machine"),
        ("vm_uuid", "Machine UUID"),
        ("instance", "Host"),
        ("device", "Device"),
        ("Value #A", "State"),
        ("Value #B", "Pending"),
        ("Value #C", "Throughput"),
        ("Value #D", "Converges"),
        ("Value #E", "Remaining"),
        ("Value #F", "Downtime expected"),
        ("Value #G", "Reasons against"),
    ])
    .largest_first("Reasons against")
    .nothing("-")
    .with(Override::named("Machine").links(&links))
    .with(Override::named("Machine UUID").links(&links).width(300))
    .with(Override::named("Device").links(&links))
    .with(Override::named("Host").links(&[Link::agent_of_row()]))
    .with(Override::named("State").words(&state::words()).coloured_cell())
    .with(Override::named("Pending").unit(Unit::Bytes))
    .with(Override::named("Throughput").unit(Unit::BytesPerSecond))
    .with(
        Override::named("Converges")
            .words(&Words::of([(1, "yes", Colour::Green), (0, "no", Colour::Orange)]))
            .coloured_cell(),
    )
    .with(Override::named("Remaining").unit(Unit::Seconds))
    .with(Override::named("Downtime expected").unit(Unit::Seconds))
    .with(
        Override::named("Reasons against")
            .unit(Unit::Count)
            .decimals(0)
            .steps(steps(Colour::Text, &[(1.0, Colour::Orange)]))
            .coloured_cell()
            .links(&[Link::runbooks()]),
    )
    .size(24, 8)
}

fn blocked(runbooks: &Runbooks) -> Result<Vec<Panel>> {
    let blocked = of("vfio_migration_blocked", "");
    let mut timeline = Panel::timeline(
        "Blocked devices by reason",
        "How many devices have each reason against them. Click on a reason for its runbook. A gap: no migration ran.",
    )
    .query(Query::over_time(format!("sum by (reason) ({blocked})")).legend("{{reason}}"))
    .unit(Unit::Count)
    .decimals(0)
    .steps(Colour::Green, &[(1.0, Colour::Orange)])
    .nothing("no source runs")
    .size(13, 9);
    for link in reason::links(runbooks)? {
        timeline = timeline.with(link);
    }
    let links =
        [Link::migration_of_row(), Link::device_of_row(), Link::migration_of_device_of_row()];
    let table = Panel::table(
        "What is blocked now, and why",
        "Each reason that holds now. It may end by itself: a reason says why a migration does not come to its end as it goes now.",
    )
    .query(Query::table(format!("{} == 1", with_machine(&blocked, ""))))
    .columns(&[
        ("reason", "Reason"),
        ("vm", "Machine"),
        ("vm_uuid", "Machine UUID"),
        ("instance", "Host"),
        ("device", "Device"),
    ])
    .nothing("-")
    .with(Override::named("Reason").links(&[Link::runbooks()]).colour(Colour::Orange).width(220))
    .with(Override::named("Machine").links(&links))
    .with(Override::named("Machine UUID").links(&links))
    .with(Override::named("Device").links(&links))
    .size(11, 9);
    Ok(vec![timeline, table])
}

fn ended() -> Vec<Panel> {
    let by_result = |panel: Panel| {
        panel
            .with(Override::named("completed").colour(Colour::Green))
            .with(Override::named("cancelled").colour(Colour::Yellow))
            .with(Override::named("failed").colour(Colour::Red))
            .with(Override::named("unknown").colour(Colour::Text))
    };
    let sessions = step_increase("vfio_migration_sessions_total", r#"role="source""#);
    let bad = increase("vfio_migration_sessions_total", r#"result=~"failed|unknown""#);
    let duration = "vfio_migration_session_duration_seconds";
    vec![
        by_result(
            Panel::time_series(
                "Migrations that ended, by result",
                "Migrations of one device, as their source saw it. unknown: the record of the end was lost, so nobody knows how it ended.",
            )
            .query(Query::over_time(format!("sum by (result) ({sessions})")).legend("{{result}}"))
            .unit(Unit::Count)
            .stacked_bars()
            .size(10, 8),
        ),
        Panel::heatmap(
            "How long migrations took",
            "From the beginning to the end of a migration of one device, at its source. A dot is one migration, with its number in the agent's /api/v1/sessions.",
            Unit::Seconds,
            &buckets(duration, r#"role="source""#),
        )
        .size(7, 8),
        Panel::table(
            "Ended badly, by host",
            "Hosts and ends at which migrations failed, or ended in a way that nobody knows, in the time that is shown.",
        )
        .query(Query::table(format!("sum by (job, instance, role, result) ({bad}) > 0")))
        .columns(&[("instance", "Host"), ("role", "End"), ("result", "Result"), ("Value", "Migrations")])
        .largest_first("Migrations")
        .nothing("-")
        .with(Override::named("Host").links(&[Link::agent_of_row()]))
        .with(Override::named("Migrations").unit(Unit::Count).decimals(0))
        .size(7, 8),
    ]
}

fn downtime() -> Vec<Panel> {
    let histogram = "vfio_migration_downtime_seconds";
    let part = r#"part="$part""#;
    let at = |q, name| Query::at_the_end(quantile(q, histogram, part)).legend(name);
    vec![
        Panel::heatmap(
            "Downtime, spread over time: $part",
            "The part of the downtime that is chosen above. total is known only where one agent saw both ends; source and destination are told by each. A dot is one migration, with its number in the agent's /api/v1/sessions.",
            Unit::Seconds,
            &buckets(histogram, part),
        )
        .size(10, 8),
        Panel::bars(
            "Quantiles of the downtime: $part",
            "Of all migrations in the time that is shown; between the bounds of buckets that are a factor of four apart, so a rough figure.",
        )
        .query(at("0.5", "half of them"))
        .query(at("0.95", "95 %"))
        .query(at("0.99", "99 %"))
        .unit(Unit::Seconds)
        .words(Words::for_nothing("none ended"))
        .steps(Colour::Green, &[(0.3, Colour::Orange), (1.0, Colour::Red)])
        .nothing("none ended")
        .size(6, 8),
        Panel::bars(
            "Where the downtime went",
            "The mean of each part in the time that is shown. source and destination are each end's whole, the others are parts of them; a part that the protocol does not show is absent.",
        )
        .query(Query::at_the_end(mean(histogram, "part", "")).legend("{{part}}"))
        .unit(Unit::Seconds)
        .words(Words::for_nothing("none ended"))
        .colour(Colour::Blue)
        .nothing("none ended")
        .size(8, 8),
    ]
}

fn slowest() -> Vec<Panel> {
    let top = |title, description, metric| {
        let longest = format!("max_over_time({}[$__range])", of(metric, ""));
        Panel::table(title, description)
            .query(Query::table(format!("topk(10, max by (job, instance, device) ({longest}))")))
            .columns(&[("instance", "Host"), ("device", "Device"), ("Value", "Longest")])
            .largest_first("Longest")
            .nothing("-")
            .with(Override::named("Longest").unit(Unit::Seconds))
            .with(Override::named("Host").links(&[Link::agent_of_row()]))
            .with(
                Override::named("Device")
                    .links(&[Link::device_of_row(), Link::migration_of_device_of_row()]),
            )
            .size(12, 9)
    };
    vec![
        top(
            "The longest migrations",
            "The ten devices with the longest migration in the time that is shown.",
            "vfio_migration_last_session_duration_seconds",
        ),
        top(
            "The longest downtimes",
            "The ten devices with the longest downtime of their own in the time that is shown: a source from its stop until it was saved, a destination from resuming to running.",
            "vfio_migration_last_session_downtime_seconds",
        ),
    ]
}
