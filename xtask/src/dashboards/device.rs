// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One device: what it is, what its driver does with it, and whether client and driver keep to the protocol.

use anyhow::Result;

use super::annotation::Annotation;
use super::dashboard::{Dashboard, Row};
use super::field::{Colour, Link, Override, Unit};
use super::last_session;
use super::panel::Panel;
use super::query::{ALL, Query, STEP, buckets, happened, of, rate, step_increase};
use super::runbooks::Runbooks;
use super::state;
use super::variable::Variable;

const DEVICE: &str = r#"device=~"$device""#;
const LEGEND: &str = "{{instance}} {{device}}";
const ACCESS: &str = r#"field=~"$field", op=~"$op""#;

pub(super) fn dashboard(runbooks: &Runbooks) -> Result<Dashboard> {
    let latency = "vfio_migration_region_access_duration_seconds_bucket";
    Ok(Dashboard {
        uid: "migscope-device",
        title: "migscope / One device",
        description: "One VFIO device: its states, the traffic of its migration region and how long it takes, and breaches of the protocol.",
        last: "1h",
        variables: vec![
            Variable::datasource(),
            Variable::job(),
            Variable::one_instance(),
            Variable::one_device(),
            Variable::label_of(
                "field",
                "Field",
                "Fields of the migration region, for the heat map",
                latency,
            ),
            Variable::label_of("op", "Access", "Reads or writes, for the heat map", latency),
        ],
        annotations: Annotation::of_migrations(DEVICE, ""),
        rows: vec![
            Row::open("What it is", about()),
            Row::open("States", states()),
            Row::open("Migration region", region()),
            Row::open("Conduct", conduct(runbooks)?),
            Row::open("Data and DMA", data()),
            Row::open("Dirty pages", dirty()),
            Row::closed("The last migration", vec![last_session::table(DEVICE, "")]),
        ],
    })
}

fn about() -> Vec<Panel> {
    let refused = happened(
        "vfio_migration_region_accesses_total",
        r#"device=~"$device", result="refused""#,
        ALL,
    );
    let violations = happened("vfio_migration_protocol_violations_total", DEVICE, ALL);
    vec![
        Panel::table(
            "Device",
            "Its driver, the protocol by which it migrates, and the machine that has it open, or had it last.",
        )
        .query(Query::table(of("vfio_migration_device_info", DEVICE)))
        .columns(&[
            ("instance", "Host"),
            ("device", "Device"),
            ("driver", "Driver"),
            ("protocol", "Protocol"),
            ("iommu_group", "IOMMU group"),
            ("vm", "Machine"),
            ("vm_uuid", "Machine UUID"),
        ])
        .nothing("-")
        .with(Override::named("Host").links(&[Link::agent_of_row()]))
        .with(Override::named("Machine").links(&[Link::migration_of_row()]))
        .with(Override::named("Machine UUID").links(&[Link::migration_of_row()]))
        .size(14, 5),
        Panel::stat("State", "The state now. unknown: nothing was seen yet, or a record was lost.")
            .query(Query::at_the_end(state::number(DEVICE)).legend(LEGEND))
            .words(state::words())
            .steps(Colour::Text, &[])
            .size(4, 5),
        Panel::stat(
            "Refused accesses",
            "Accesses to the migration region that the driver refused in the time that is shown. Absent while none of any kind was seen.",
        )
        .query(Query::at_the_end(format!("sum({refused})")))
        .unit(Unit::Count)
        .decimals(0)
        .steps(Colour::Text, &[(0.5, Colour::Orange)])
        .nothing("none seen")
        .size(3, 5),
        Panel::stat(
            "Breaches of the protocol",
            "What was done against the protocol in the time that is shown. An access that was wrong and was refused counts twice: once for what was wrong, once for the refusal.",
        )
        .query(Query::at_the_end(format!("sum({violations})")))
        .unit(Unit::Count)
        .decimals(0)
        .steps(Colour::Text, &[(0.5, Colour::Red)])
        .nothing("none seen")
        .size(3, 5),
    ]
}

fn states() -> Vec<Panel> {
    let seconds = happened("vfio_migration_state_seconds_total", DEVICE, ALL);
    let transitions = happened("vfio_migration_state_transitions_total", DEVICE, ALL);
    let mut in_states = Panel::bars(
        "Time in each state",
        "Of the time that is shown, as far as the state was known.",
    )
    .query(
        Query::at_the_end(format!("sum by (instance, state) ({seconds})"))
            .legend("{{state}}, {{instance}}"),
    )
    .unit(Unit::Seconds)
    .nothing("none known")
    .size(8, 9);
    for (name, colour) in state::STATES {
        in_states = in_states.with(Override::beginning_with(name).colour(colour));
    }
    vec![
        Panel::timeline("State", "The state over time. A gap is a time of which nothing is known.")
            .query(Query::over_time(state::number(DEVICE)).legend(LEGEND))
            .words(state::words())
            .size(24, 5),
        in_states,
        Panel::table(
            "Changes of state",
            "What was asked for or happened in the time that is shown. invalid is what is no state at all.",
        )
        .query(Query::table(format!("sum by (from, to, result) ({transitions}) > 0")))
        .columns(&[("from", "From"), ("to", "To"), ("result", "Result"), ("Value", "Times")])
        .largest_first("Times")
        .nothing("-")
        .with(Override::named("Times").unit(Unit::Count).decimals(0))
        .size(8, 9),
        Panel::heatmap(
            "How long changes of state took, on this host",
            "Accepted writes of the state. All devices of the host: the histogram has no device.",
            Unit::Seconds,
            &buckets("vfio_migration_state_transition_duration_seconds", ""),
        )
        .size(8, 9),
    ]
}

fn region() -> Vec<Panel> {
    let accesses = rate("vfio_migration_region_accesses_total", DEVICE);
    let refused =
        rate("vfio_migration_region_accesses_total", r#"device=~"$device", result="refused""#);
    let histogram = "vfio_migration_region_access_duration_seconds";
    let latency = rate(&format!("{histogram}_bucket"), ACCESS);
    let quantile =
        |quantile| format!("histogram_quantile({quantile}, sum by (le, op) ({latency}))");
    vec![
        Panel::heatmap(
            "How long accesses to migration regions took, on this host",
            "How long the driver took to serve or refuse an access. All devices of the host: the histogram has no device. Choose fields and reads or writes above.",
            Unit::Seconds,
            &buckets(histogram, ACCESS),
        )
        .size(12, 9),
        Panel::time_series(
            "Quantiles of the same",
            "Between the bounds of buckets that are a factor of four apart, so a rough figure.",
        )
        .query(Query::over_time(quantile("0.5")).legend("half of them, {{op}}"))
        .query(Query::over_time(quantile("0.99")).legend("99 %, {{op}}"))
        .unit(Unit::Seconds)
        .size(12, 9),
        Panel::time_series(
            "Traffic of the region, by field",
            "Reads and writes of the device's migration region. Accesses through a mapped window are not seen.",
        )
        .query(Query::over_time(format!("sum by (field, op) ({accesses})")).legend("{{op}} {{field}}"))
        .unit(Unit::CountPerSecond)
        .size(16, 8),
        Panel::time_series(
            "Refused, by field",
            "Accesses that the driver refused. Those of Conduct below say which rule was broken.",
        )
        .query(Query::over_time(format!("sum by (field, op) ({refused})")).legend("{{op}} {{field}}"))
        .unit(Unit::CountPerSecond)
        .nothing("none seen")
        .size(8, 8),
    ]
}

fn conduct(runbooks: &Runbooks) -> Result<Vec<Panel>> {
    let link = runbooks.link("VfioMigrationProtocolViolation")?;
    let counter = "vfio_migration_protocol_violations_total";
    let steps = happened(counter, DEVICE, STEP);
    let all = happened(counter, DEVICE, ALL);
    Ok(vec![
        Panel::time_series(
            "Breaches of the protocol over time, by rule",
            "What the driver refused, and what the watch saw of client and driver. A rule that was never broken has no series.",
        )
        .query(Query::over_time(format!("sum by (rule) ({steps})")).legend("{{rule}}"))
        .unit(Unit::Count)
        .stacked_bars()
        .nothing("none seen")
        .links(std::slice::from_ref(&link))
        .size(14, 8),
        Panel::table(
            "Breaches of the protocol, by rule",
            "In the time that is shown. The runbook says of each rule who broke it and what it does to the guest.",
        )
        .query(Query::table(format!("sum by (rule) ({all}) > 0")))
        .columns(&[("rule", "Rule"), ("Value", "Times")])
        .largest_first("Times")
        .nothing("-")
        .with(Override::named("Rule").links(&[link]))
        .with(Override::named("Times").unit(Unit::Count).decimals(0))
        .size(10, 8),
    ])
}

fn data() -> Vec<Panel> {
    let bytes = rate("vfio_migration_data_bytes_total", DEVICE);
    let iterations = step_increase("vfio_migration_iterations_total", DEVICE);
    let dma = rate("vfio_migration_dma_bytes_total", DEVICE);
    let transfers = rate("vfio_migration_dma_transfers_total", DEVICE);
    let by =
        |expr| Query::over_time(format!("sum by (direction) ({expr})")).legend("{{direction}}");
    let series = |title, description| Panel::time_series(title, description).size(6, 8);
    vec![
        series("Device data moved", "Out of the device (save), into it (resume).")
            .query(by(bytes))
            .unit(Unit::BytesPerSecond),
        series("Buffers moved", "Iterations from point to point, in either direction.")
            .query(Query::over_time(iterations).legend(LEGEND))
            .unit(Unit::Count),
        series(
            "DMA",
            "Bytes of transfers seen to their end; to_memory dirties pages. Told by devices of vfio_mediate alone.",
        )
        .query(by(dma))
        .unit(Unit::BytesPerSecond)
        .nothing("not told by this driver"),
        series("DMA transfers", "Transfers seen to their end. Told by devices of vfio_mediate alone.")
            .query(by(transfers))
            .unit(Unit::CountPerSecond)
            .nothing("not told by this driver"),
    ]
}

fn dirty() -> Vec<Panel> {
    let counter = |metric, labels: &str| format!("max by ({labels}) ({})", rate(metric, DEVICE));
    let latency = buckets("vfio_migration_dirty_query_duration_seconds", "");
    vec![
        Panel::time_series(
            "Pages reported dirty, by who reports them",
            "region and dma_logging report of this device; type1, iommufd and kvm of the whole machine that has it. Two may report the same page: compare, do not add.",
        )
        .query(
            Query::over_time(counter(
                "vfio_migration_dirty_pages_total",
                "instance, device, source",
            ))
            .legend(&format!("{{{{source}}}}, {LEGEND}")),
        )
        .unit(Unit::CountPerSecond)
        .size(8, 8),
        Panel::time_series(
            "Queries for dirty pages, by their outcome",
            "none: no page; all: every page, which moves the whole memory again; bitmap: some; error: nothing is known after it.",
        )
        .query(
            Query::over_time(counter(
                "vfio_migration_dirty_queries_total",
                "instance, device, source, outcome",
            ))
            .legend(&format!("{{{{source}}}} {{{{outcome}}}}, {LEGEND}")),
        )
        .unit(Unit::CountPerSecond)
        .size(8, 8),
        Panel::heatmap(
            "How long queries for dirty pages took, on this host",
            "How long the driver or the kernel took to answer. All devices of the host: the histogram has no device.",
            Unit::Seconds,
            &latency,
        )
        .size(8, 8),
    ]
}
