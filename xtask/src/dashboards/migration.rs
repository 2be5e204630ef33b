// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One migration, at both its ends: how it goes, whether it comes to its end, and where the downtime went.
//!
//! A migration is a machine's; its UUID is the same on both hosts, so that is what is chosen. A machine without one is found by its
//! device and host.

use anyhow::Result;

use super::annotation::Annotation;
use super::dashboard::{Dashboard, Row};
use super::field::{Colour, Link, Override, Unit, Words};
use super::last_session;
use super::panel::Panel;
use super::query::{
    ALL, Query, STEP, happened, of, rate, step_increase, with_machine, with_machine_then,
};
use super::reason;
use super::runbooks::Runbooks;
use super::state;
use super::variable::Variable;

const MACHINE: &str = r#"vm=~"$vm", vm_uuid=~"$vm_uuid""#;
const DEVICE: &str = r#"device=~"$device""#;
const LEGEND: &str = "{{instance}} {{device}}";
/// Who reports dirty pages of the device itself, and of the whole machine.
const OF_DEVICE: &str = r#"device=~"$device", source=~"region|dma_logging""#;
const OF_MACHINE: &str = r#"device=~"$device", source=~"type1|iommufd|kvm""#;

pub(super) fn dashboard(runbooks: &Runbooks) -> Result<Dashboard> {
    Ok(Dashboard {
        uid: "migscope-migration",
        title: "migscope / One migration",
        description: "The migration of one machine with VFIO devices, at both its ends.",
        last: "15m",
        variables: vec![
            Variable::datasource(),
            Variable::job(),
            Variable::instance(),
            Variable::vm(),
            Variable::vm_uuid(),
            Variable::device(MACHINE),
        ],
        annotations: Annotation::of_migrations(DEVICE, MACHINE),
        rows: vec![
            Row::open("Now", now()),
            Row::open("Its course", course(runbooks)?),
            Row::open("Does it converge?", convergence()),
            Row::open("Downtime, foretold and real", downtime()),
            Row::open("Iterations and dirty memory", dirty()),
            Row::open(
                "The last migration of each device",
                vec![last_session::table(DEVICE, MACHINE)],
            ),
        ],
    })
}

/// A metric of the devices of the machine.
fn ours(metric: &str) -> String {
    with_machine(&of(metric, DEVICE), MACHINE)
}

/// A condition: only of hosts on which the machine was in the time that is shown.
fn on_its_hosts(expr: &str) -> String {
    let info = of("vfio_migration_device_info", MACHINE);
    format!("{expr} and on (job, instance) max_over_time({info}[$__range])")
}

fn now() -> Vec<Panel> {
    let stat = |title, description, metric, unit| {
        Panel::stat(title, description)
            .query(Query::at_the_end(ours(metric)).legend(LEGEND))
            .unit(unit)
            .steps(Colour::Text, &[])
            .size(4, 5)
    };
    vec![
        Panel::stat("State", "The state of each device now. unknown: nothing was seen yet, or a record was lost.")
            .query(
                Query::at_the_end(with_machine(&format!("({})", state::number(DEVICE)), MACHINE))
                    .legend(LEGEND),
            )
            .words(state::words())
            .steps(Colour::Text, &[])
            .links(&[Link::device_of_series()])
            .size(4, 5),
        stat(
            "Converges",
            "Whether what is left is expected to fit into the downtime that is allowed. Told of a source while it migrates.",
            "vfio_migration_converging",
            Unit::None,
        )
        .words(Words::of([(1, "yes", Colour::Green), (0, "no", Colour::Orange)]))
        .nothing("unknown, or not migrating"),
        stat(
            "Remaining",
            "Estimated time until the migration ends. Absent outside of a migration, and while not enough is known.",
            "vfio_migration_estimated_remaining_seconds",
            Unit::Seconds,
        )
        .nothing("unknown, or not migrating"),
        stat(
            "Pending",
            "Bytes that each device still has to give, as it last told.",
            "vfio_migration_pending_bytes",
            Unit::Bytes,
        )
        .nothing("not told"),
        stat(
            "Throughput",
            "How fast device data moves: out of the source, into the destination.",
            "vfio_migration_throughput_bytes_per_second",
            Unit::BytesPerSecond,
        )
        .nothing("unknown, or not migrating"),
        stat(
            "Downtime expected",
            "What the downtime would be, with the part that moves only once the device is stopped. From 300 ms on (what QEMU allows unless told otherwise) it is orange.",
            "vfio_migration_estimated_downtime_seconds",
            Unit::Seconds,
        )
        .steps(Colour::Green, &[(0.3, Colour::Orange), (1.0, Colour::Red)])
        .nothing("unknown, or not migrating"),
    ]
}

fn course(runbooks: &Runbooks) -> Result<Vec<Panel>> {
    let blocked = of("vfio_migration_blocked", DEVICE);
    let ever = format!("max_over_time({blocked}[$__range]) == 1");
    let reasons = format!(
        "{} and on (job, instance, device, reason) ({ever})",
        ours("vfio_migration_blocked")
    );
    let mut why = Panel::timeline(
        "Why it may not come to its end",
        "The reasons that held at some time. Click on one for its runbook. An empty panel: none held, or no migration was seen; the timeline above says which.",
    )
    .query(Query::over_time(reasons).legend("{{reason}}: {{device}}"))
    .words(Words::of([(0, "-", Colour::Green), (1, "holds", Colour::Orange)]))
    .nothing("none held, or not migrating")
    .size(24, 6);
    for link in reason::links(runbooks)? {
        why = why.with(link);
    }
    Ok(vec![
        Panel::timeline(
            "State of each device",
            "The state of each device at both ends. A gap is a time of which nothing is known.",
        )
        .query(
            Query::over_time(with_machine(&format!("({})", state::number(DEVICE)), MACHINE))
                .legend(LEGEND),
        )
        .words(state::words())
        .links(&[Link::device_of_series()])
        .size(24, 6),
        why,
    ])
}

fn convergence() -> Vec<Panel> {
    let pending =
        |metric, name: &str| Query::over_time(ours(metric)).legend(&format!("{name}, {LEGEND}"));
    let dirty = "vfio_migration_dirty_rate_bytes_per_second";
    vec![
        Panel::time_series(
            "Bytes still to move",
            "What each device last told: all that is pending, and of it what pre-copy has not read yet, what changed since it was read, and what moves only once the device is stopped.",
        )
        .query(pending("vfio_migration_pending_bytes", "pending"))
        .query(pending("vfio_migration_precopy_initial_bytes", "initial"))
        .query(pending("vfio_migration_precopy_dirty_bytes", "changed"))
        .query(pending("vfio_migration_stop_copy_bytes", "after the stop"))
        .unit(Unit::Bytes)
        .stairs()
        .nothing("not told"),
        Panel::time_series(
            "Throughput against dirty rate",
            "Where memory becomes dirty faster than data moves, pre-copy does not end by itself. What type1, iommufd and kvm report is of the whole machine, and two of them may report the same page: compare, do not add.",
        )
        .query(
            Query::over_time(ours("vfio_migration_throughput_bytes_per_second"))
                .legend(&format!("moved ({{{{direction}}}}), {LEGEND}")),
        )
        .query(
            Query::over_time(with_machine(&of(dirty, OF_DEVICE), MACHINE))
                .legend(&format!("dirty by {{{{source}}}}, {LEGEND}")),
        )
        .query(
            Query::over_time(format!(
                "max by (instance, vm, vm_uuid, source) ({})",
                with_machine(&of(dirty, OF_MACHINE), MACHINE)
            ))
            .legend("dirty by {{source}}, all of {{vm}} on {{instance}}"),
        )
        .unit(Unit::BytesPerSecond)
        .with(Override::of_query("B").dashed())
        .with(Override::of_query("C").dashed())
        .nothing("unknown, or not migrating"),
        Panel::time_series(
            "Convergence",
            "How fast device data becomes stale over how fast it moves. Below the line at 1 each pass is shorter than the one before.",
        )
        .query(Query::over_time(ours("vfio_migration_convergence_ratio")).legend(LEGEND))
        .unit(Unit::Ratio)
        .limits(Colour::Green, &[(1.0, Colour::Red)])
        .nothing("unknown, or not migrating")
        .size(8, 7),
        Panel::time_series(
            "Time remaining",
            "The estimate at each time. One that goes down as fast as time goes by was right.",
        )
        .query(Query::over_time(ours("vfio_migration_estimated_remaining_seconds")).legend(LEGEND))
        .unit(Unit::Seconds)
        .nothing("unknown, or not migrating")
        .size(8, 7),
        Panel::time_series(
            "Time over which the dirty rate was taken",
            "A page that becomes dirty twice in it counts once: a longer one gives a smaller rate. Compare rates of like times.",
        )
        .query(
            Query::over_time(ours("vfio_migration_dirty_rate_window_seconds"))
                .legend(&format!("{{{{source}}}}, {LEGEND}")),
        )
        .unit(Unit::Seconds)
        .nothing("unknown, or not migrating")
        .size(8, 7),
    ]
}

fn downtime() -> Vec<Panel> {
    let estimate = of("vfio_migration_estimated_downtime_seconds", DEVICE);
    let came = last_session::with_result("vfio_migration_last_session_downtime_seconds", DEVICE);
    let histogram = "vfio_migration_downtime_seconds";
    let sum = on_its_hosts(&happened(&format!("{histogram}_sum"), "", ALL));
    let count = on_its_hosts(&happened(&format!("{histogram}_count"), "", ALL));
    vec![
        Panel::time_series(
            "Downtime expected",
            "The estimate at each time, with the part of the device that moves only once it is stopped.",
        )
        .query(Query::over_time(ours("vfio_migration_estimated_downtime_seconds")).legend(LEGEND))
        .unit(Unit::Seconds)
        .nothing("unknown, or not migrating")
        .size(8, 9),
        Panel::bars(
            "Foretold, and come",
            "The last estimate in the time that is shown, beside each end's own downtime in the last migration of its device: a source from its stop until it was saved or went back, a destination from resuming to running.",
        )
        .query(
            Query::at_the_end(with_machine(&format!("last_over_time({estimate}[$__range])"), MACHINE))
                .legend(&format!("foretold, {LEGEND}")),
        )
        .query(
            Query::at_the_end(with_machine_then(&format!("({came})"), MACHINE))
                .legend(&format!("{{{{role}}}}, {LEGEND}")),
        )
        .unit(Unit::Seconds)
        .colour(Colour::Orange)
        .with(Override::of_query("A").colour(Colour::Blue))
        .nothing("not foretold, and none ended")
        .size(8, 9),
        Panel::bars(
            "Downtime in parts, by host",
            "The mean of each part, of all migrations that ended in the time that is shown on the hosts where this machine was. Choose a time in which only this one ended, and it is this one's.",
        )
        .query(
            Query::at_the_end(format!(
                "sum by (instance, part) ({sum}) / sum by (instance, part) ({count})"
            ))
            .legend("{{part}}, {{instance}}"),
        )
        .unit(Unit::Seconds)
        .words(Words::for_nothing("none ended"))
        .colour(Colour::Orange)
        .nothing("none ended")
        .size(8, 9),
    ]
}

fn dirty() -> Vec<Panel> {
    let of_machine = |expr: &str, labels: &str| {
        format!("max by (instance, vm, vm_uuid, {labels}) ({})", with_machine(expr, MACHINE))
    };
    let both = |panel: Panel, counter: &str, labels: &str, legend: &str| {
        panel
            .query(
                Query::over_time(with_machine(&rate(counter, OF_DEVICE), MACHINE))
                    .legend(&format!("{legend}, {LEGEND}")),
            )
            .query(
                Query::over_time(of_machine(&rate(counter, OF_MACHINE), labels))
                    .legend(&format!("{legend}, all of {{{{vm}}}} on {{{{instance}}}}")),
            )
    };
    let iterations = step_increase("vfio_migration_iterations_total", DEVICE);
    let moved = rate("vfio_migration_data_bytes_total", DEVICE);
    let latency =
        on_its_hosts(&happened("vfio_migration_dirty_query_duration_seconds_bucket", "", STEP));
    vec![
        Panel::time_series(
            "Iterations",
            "Buffers of device data moved, from point to point. A number that stands still while the state is pre_copy: nobody asks the device.",
        )
        .query(Query::over_time(with_machine(&iterations, MACHINE)).legend(LEGEND))
        .unit(Unit::Count)
        .size(8, 8),
        Panel::time_series(
            "Device data moved",
            "As counted: out of the device (save), into it (resume).",
        )
        .query(
            Query::over_time(with_machine(&moved, MACHINE))
                .legend(&format!("{{{{direction}}}}, {LEGEND}")),
        )
        .unit(Unit::BytesPerSecond)
        .size(8, 8),
        both(
            Panel::time_series(
                "Memory reported dirty, by who reports it",
                "region and dma_logging report what the device's DMA dirties; type1, iommufd and kvm report of the whole machine, and are shown once for it. Two of them may report the same page.",
            ),
            "vfio_migration_dirty_bytes_total",
            "source",
            "{{source}}",
        )
        .unit(Unit::BytesPerSecond)
        .size(8, 8),
        both(
            Panel::time_series(
                "Queries for dirty pages, by their outcome",
                "none: no page; all: every page, which moves the whole memory again; bitmap: some; error: nothing is known after it.",
            ),
            "vfio_migration_dirty_queries_total",
            "source, outcome",
            "{{source}} {{outcome}}",
        )
        .unit(Unit::CountPerSecond)
        .size(12, 8),
        Panel::heatmap(
            "How long queries for dirty pages took, on its hosts",
            "All devices of the hosts on which this machine was: the histogram has no device.",
            Unit::Seconds,
            &format!("sum by (le) ({latency})"),
        )
        .size(12, 8),
    ]
}
