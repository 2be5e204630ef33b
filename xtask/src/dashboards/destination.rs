// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The side that migrations come to. Most of the downtime can be there, and a source's figures do not show it.

use anyhow::Result;

use super::annotation::Annotation;
use super::dashboard::{Dashboard, Row};
use super::field::{Colour, Link, Override, Unit, Words};
use super::panel::Panel;
use super::query::{
    ALL, DESTINATION, Query, SOURCE, buckets, happened, increase, mean, of, quantile, rate,
    step_increase, while_in, with_machine,
};
use super::runbooks::Runbooks;
use super::state;
use super::variable::Variable;

const MACHINE: &str = r#"vm=~"$vm", vm_uuid=~"$vm_uuid""#;
/// Machines whose two ends can be joined.
const WITH_UUID: &str = r#"vm=~"$vm", vm_uuid=~"$vm_uuid", vm_uuid!="""#;
const SAVE: &str = r#"direction="save""#;
const RESUME: &str = r#"direction="resume""#;
const LEGEND: &str = "{{vm}} {{instance}} {{device}}";

pub(super) fn dashboard(runbooks: &Runbooks) -> Result<Dashboard> {
    Ok(Dashboard {
        uid: "migscope-destination",
        title: "migscope / Destination",
        description: "The side that migrations come to: what is loaded, how long it takes until devices run, and both ends of each machine side by side.",
        last: "1h",
        variables: vec![
            Variable::datasource(),
            Variable::job(),
            Variable::instance(),
            Variable::vm(),
            Variable::vm_uuid(),
        ],
        annotations: Annotation::of_migrations("", MACHINE),
        rows: vec![
            Row::open("Now, and in the time that is shown", counts(runbooks)?),
            Row::open("Both ends", both_ends()),
            Row::open("Loading", loading()),
            Row::open("Downtime at the destination", downtime()),
        ],
    })
}

fn counts(runbooks: &Runbooks) -> Result<Vec<Panel>> {
    let ended = |result: &str| {
        let matchers = format!(r#"role="destination", result=~"{result}""#);
        Query::at_the_end(format!("sum({})", increase("vfio_migration_sessions_total", &matchers)))
    };
    let stat = |title, description, query, step: Colour| {
        Panel::stat(title, description)
            .query(query)
            .unit(Unit::Count)
            .decimals(0)
            .steps(Colour::Text, &[(0.5, step)])
            .size(4, 4)
    };
    let slow = of("vfio_migration_blocked", r#"reason="destination_slow""#);
    let histogram = "vfio_migration_downtime_seconds";
    Ok(vec![
        stat(
            "Devices being loaded",
            "Devices in resuming now.",
            Query::at_the_end(format!("sum({})", of("vfio_migration_device_state", DESTINATION))),
            Colour::Purple,
        )
        .nothing("no device seen"),
        stat(
            "Sources that wait for their destination",
            "Sources with the reason destination_slow against them now.",
            Query::at_the_end(format!("sum({slow})")),
            Colour::Orange,
        )
        .nothing("no source runs")
        .links(&[runbooks.link("VfioMigrationBlocked-destination_slow")?]),
        stat(
            "Completed",
            "Devices that came to run here in the time that is shown.",
            ended("completed"),
            Colour::Green,
        ),
        stat(
            "Cancelled",
            "Devices that were left before they ran, in the time that is shown.",
            ended("cancelled"),
            Colour::Yellow,
        ),
        stat(
            "Failed or unknown",
            "Devices that failed while they were loaded, or of whose end the record was lost, in the time that is shown.",
            ended("failed|unknown"),
            Colour::Red,
        )
        .links(&[runbooks.link("VfioMigrationFailed")?]),
        stat(
            "Downtime here, 95 %",
            "From resuming until the device runs: 95 of 100 were shorter. The device's own time; for most of it the source may still run.",
            Query::at_the_end(quantile("0.95", histogram, r#"part="destination""#)),
            Colour::Text,
        )
        .unit(Unit::Seconds)
        .decimals(2)
        .words(Words::for_nothing("none ended"))
        .nothing("none ended"),
    ])
}

fn both_ends() -> Vec<Panel> {
    let end = |metric: &str, direction: &str, states: &str| {
        let told = with_machine(&of(metric, direction), WITH_UUID);
        Query::table(format!("sum by (vm, vm_uuid) ({})", while_in(states, &told)))
    };
    let moved = |direction: &str| {
        let bytes = increase("vfio_migration_data_bytes_total", direction);
        let devices = with_machine(&format!("({bytes} > 0)"), WITH_UUID);
        Query::table(format!("sum by (vm, vm_uuid) ({devices})"))
    };
    let throughput = "vfio_migration_throughput_bytes_per_second";
    vec![
        Panel::timeline(
            "State of each device, both ends of each machine below each other",
            "Sorted by machine: a source that goes to stop_and_copy and a destination in resuming are one migration. Machines without a UUID are not here; see the dashboard One migration.",
        )
        .query(
            // Prometheus gives series in the order of their labels, and this one comes first.
            Query::over_time(format!(
                r#"label_replace({}, "_machine", "$1", "vm_uuid", "(.*)")"#,
                with_machine(&format!("({})", state::number("")), WITH_UUID)
            ))
            .legend(LEGEND),
        )
        .words(state::words())
        .links(&[Link::device_of_series()])
        .nothing("no machine with a UUID seen")
        .size(24, 8),
        Panel::table(
            "Sent and loaded, by machine",
            "What the source sends beside what the destination loads, added up over the devices that tell. Bytes are those of the time that is shown, up to now. A dash: unknown, or that end does not migrate now.",
        )
        .query(end(throughput, SAVE, SOURCE))
        .query(end(throughput, RESUME, DESTINATION))
        .query(moved(SAVE))
        .query(moved(RESUME))
        .columns(&[
            ("vm", "Machine"),
            ("vm_uuid", "Machine UUID"),
            ("Value #A", "Sends"),
            ("Value #B", "Loads"),
            ("Value #C", "Sent"),
            ("Value #D", "Loaded"),
        ])
        .largest_first("Sends")
        .nothing("-")
        .with(Override::named("Machine").links(&[Link::migration_of_row()]))
        .with(Override::named("Machine UUID").links(&[Link::migration_of_row()]).width(300))
        .with(Override::named("Sends").unit(Unit::BytesPerSecond))
        .with(Override::named("Loads").unit(Unit::BytesPerSecond))
        .with(Override::named("Sent").unit(Unit::Bytes))
        .with(Override::named("Loaded").unit(Unit::Bytes))
        .size(12, 8),
        Panel::time_series(
            "Sent against loaded, by machine",
            "Device data that sources give and that destinations take, of machines with a UUID. A destination that takes less for long makes its source wait.",
        )
        .query(
            Query::over_time(format!(
                "sum by (vm, vm_uuid) ({})",
                with_machine(&rate("vfio_migration_data_bytes_total", SAVE), WITH_UUID)
            ))
            .legend("sent, {{vm}} {{vm_uuid}}"),
        )
        .query(
            Query::over_time(format!(
                "sum by (vm, vm_uuid) ({})",
                with_machine(&rate("vfio_migration_data_bytes_total", RESUME), WITH_UUID)
            ))
            .legend("loaded, {{vm}} {{vm_uuid}}"),
        )
        .unit(Unit::BytesPerSecond)
        .with(Override::of_query("A").dashed())
        .size(12, 8),
    ]
}

fn loading() -> Vec<Panel> {
    let resuming = happened("vfio_migration_state_seconds_total", DESTINATION, ALL);
    let loaded = rate("vfio_migration_data_bytes_total", RESUME);
    vec![
        Panel::time_series("Device data loaded, by device", "As counted, into the device.")
            .query(Query::over_time(with_machine(&loaded, MACHINE)).legend(LEGEND))
            .unit(Unit::BytesPerSecond)
            .size(8, 8),
        Panel::bars(
            "Time in resuming, by device",
            "In the time that is shown. A device that stays there for long waits for data, or for its driver.",
        )
        .query(Query::at_the_end(format!("{} > 0", with_machine(&resuming, MACHINE))).legend(LEGEND))
        .unit(Unit::Seconds)
        .colour(Colour::Purple)
        .nothing("none resumed")
        .size(8, 8),
        Panel::heatmap(
            "How long migrations took, at the destination",
            "From resuming to their end. A dot is one migration, with its number in the agent's /api/v1/sessions.",
            Unit::Seconds,
            &buckets("vfio_migration_session_duration_seconds", r#"role="destination""#),
        )
        .size(8, 8),
    ]
}

fn downtime() -> Vec<Panel> {
    let histogram = "vfio_migration_downtime_seconds";
    let parts = r#"part=~"load|start|destination|transfer_gap""#;
    let to_running = r#"from="resuming", to="running""#;
    let sessions = step_increase("vfio_migration_sessions_total", r#"role="destination""#);
    vec![
        Panel::heatmap(
            "From resuming until it runs",
            "The part destination of the downtime. A dot is one migration, with its number in the agent's /api/v1/sessions.",
            Unit::Seconds,
            &buckets(histogram, r#"part="destination""#),
        )
        .size(8, 9),
        Panel::bars(
            "Parts of the downtime, by host",
            "The mean of each part in the time that is shown: load (data that comes after the source's stop), start (the write that starts the device), destination (all of it); transfer_gap where one agent saw both ends.",
        )
        .query(
            Query::at_the_end(mean(histogram, "instance, part", parts))
                .legend("{{part}}, {{instance}}"),
        )
        .unit(Unit::Seconds)
        .words(Words::for_nothing("none ended"))
        .colour(Colour::Orange)
        .links(&[Link::agent_of_series()])
        .nothing("none ended")
        .size(8, 9),
        Panel::heatmap(
            "How long the start of a device took",
            "The write that takes a device from resuming to running, in its driver: firmware that allocates, queues that are made. It is all downtime.",
            Unit::Seconds,
            &buckets("vfio_migration_state_transition_duration_seconds", to_running),
        )
        .size(8, 9),
        Panel::time_series(
            "Ended at the destination, by result",
            "Migrations of one device, as their destination saw it.",
        )
        .query(Query::over_time(format!("sum by (result) ({sessions})")).legend("{{result}}"))
        .unit(Unit::Count)
        .stacked_bars()
        .with(Override::named("completed").colour(Colour::Green))
        .with(Override::named("cancelled").colour(Colour::Yellow))
        .with(Override::named("failed").colour(Colour::Red))
        .with(Override::named("unknown").colour(Colour::Text))
        .size(24, 7),
    ]
}
