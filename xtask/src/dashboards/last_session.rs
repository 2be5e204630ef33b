// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last migration of each device, as the agent keeps it after its end.

use super::field::{Colour, Link, Override, Unit, Words};
use super::panel::Panel;
use super::query::{Query, of, with_machine_then};

/// A metric of the last migration, with its end and result as labels.
pub(super) fn with_result(metric: &str, more: &str) -> String {
    let value = of(metric, more);
    let result = of("vfio_migration_last_session_result", more);
    format!("{value} * on (job, instance, device) group_left (role, result) ({result} == 1)")
}

/// A row for each device of these machines.
pub(super) fn table(device: &str, machine: &str) -> Panel {
    let column = |metric: &str, factor: &str| {
        let value = with_result(&format!("vfio_migration_last_session_{metric}"), device);
        Query::table(with_machine_then(&format!("({factor}{value})"), machine))
    };
    let machine_links = [Link::migration_of_row(), Link::migration_of_device_of_row()];
    Panel::table(
        "Last migrations",
        "What the agent keeps of the last migration of each device until its series end. A dash is what is unknown: the probe was missing, or a record was lost.",
    )
    .query(column("end_time_seconds", "1000 * "))
    .query(column("duration_seconds", ""))
    .query(column("downtime_seconds", ""))
    .query(column("data_bytes", ""))
    .query(column("iterations", ""))
    .query(column("dirty_bytes", ""))
    .query(column("exact", ""))
    .columns(&[
        ("vm", "Machine"),
        ("vm_uuid", "Machine UUID"),
        ("instance", "Host"),
        ("device", "Device"),
        ("role", "End"),
        ("result", "Result"),
        ("Value #A", "Ended"),
        ("Value #B", "Duration"),
        ("Value #C", "Downtime"),
        ("Value #D", "Device data"),
        ("Value #E", "Iterations"),
        ("Value #F", "Reported dirty"),
        ("Value #G", "All seen"),
    ])
    .largest_first("Ended")
    .nothing("-")
    .with(Override::named("Machine").links(&machine_links))
    .with(Override::named("Machine UUID").links(&machine_links))
    .with(Override::named("Device").links(&[Link::device_of_row()]))
    .with(Override::named("Host").links(&[Link::agent_of_row()]))
    .with(
        Override::named("Result")
            .words(&Words::of([
                ("completed", "completed", Colour::Green),
                ("cancelled", "cancelled", Colour::Yellow),
                ("failed", "failed", Colour::Red),
                ("unknown", "unknown", Colour::Text),
            ]))
            .coloured_cell(),
    )
    .with(Override::named("Ended").unit(Unit::Time).width(170))
    .with(Override::named("Duration").unit(Unit::Seconds))
    .with(Override::named("Downtime").unit(Unit::Seconds))
    .with(Override::named("Device data").unit(Unit::Bytes))
    .with(Override::named("Iterations").unit(Unit::Count).decimals(0))
    .with(Override::named("Reported dirty").unit(Unit::Bytes))
    .with(
        Override::named("All seen")
            .words(&Words::of([(1, "yes", Colour::Green), (0, "no", Colour::Orange)]))
            .coloured_cell(),
    )
    .size(24, 7)
}
