//! The cases, by what they are about.

mod files;
mod lives;
mod services;
mod workloads;

/// Every case: its name and what it does.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("services_and_names", services::services_and_names),
    (
        "stateful_pods_have_names",
        services::stateful_pods_have_names,
    ),
    (
        "node_ports_open_on_the_host",
        services::node_ports_open_on_the_host,
    ),
    ("two_meshes_at_once", services::two_meshes_at_once),
    ("volumes_and_environment", files::volumes_and_environment),
    (
        "nothing_is_written_on_the_host",
        files::nothing_is_written_on_the_host,
    ),
    ("users_and_capabilities", files::users_and_capabilities),
    (
        "init_sidecar_main_in_order",
        lives::init_sidecar_main_in_order,
    ),
    (
        "crashes_are_restarted_and_logged",
        lives::crashes_are_restarted_and_logged,
    ),
    ("probes_decide", lives::probes_decide),
    (
        "what_is_missing_is_said_and_waited_for",
        lives::what_is_missing_is_said_and_waited_for,
    ),
    ("jobs_complete", workloads::jobs_complete),
    (
        "edits_scale_replace_and_delete",
        workloads::edits_scale_replace_and_delete,
    ),
    (
        "a_bad_edit_changes_nothing",
        workloads::a_bad_edit_changes_nothing,
    ),
    (
        "a_crashed_supervisor_is_cleaned_up",
        workloads::a_crashed_supervisor_is_cleaned_up,
    ),
];
