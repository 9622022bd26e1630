//! A pod's `status`, as the kubelet would report it.
//!
//! Pure. Called by [`super::publish`] for the Pod objects the control plane reads.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::report::{ContainerReport, Ended, PodReport, Role, State};

/// The pod with its status.
pub(super) fn with_status(pod: &Pod, report: &PodReport, ips: &[IpAddr], node: &[IpAddr]) -> Pod {
    let mut pod = pod.clone();
    if report.terminating {
        // Consumers tell a pod that is leaving by its deletion timestamp.
        pod.metadata.deletion_timestamp = Some(Time(report.ready_since));
    }
    let images: Vec<(String, String)> = pod
        .spec
        .iter()
        .flat_map(|spec| {
            spec.init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
        })
        .map(|container| {
            (
                container.name.clone(),
                container.image.clone().unwrap_or_default(),
            )
        })
        .collect();
    let statuses = |main: bool| -> Vec<ContainerStatus> {
        let chosen = report
            .containers
            .iter()
            .filter(|c| (c.role == Role::Main) == main);
        chosen
            .map(|container| container_status(container, &images))
            .collect()
    };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string);
    pod.status = Some(PodStatus {
        phase: Some(report.phase.as_str().to_owned()),
        conditions: Some(conditions(report)),
        container_statuses: Some(statuses(true)),
        init_container_statuses: Some(statuses(false)).filter(|list| !list.is_empty()),
        pod_ip: first(ips),
        pod_ips: Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        host_ip: first(node),
        host_ips: Some(
            node.iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        start_time: Some(Time(report.created)),
        ..PodStatus::default()
    });
    pod
}

fn conditions(report: &PodReport) -> Vec<PodCondition> {
    let since_ready = report.ready_since;
    let condition = |type_: &str, holds: bool, at| PodCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(at)),
        ..PodCondition::default()
    };
    vec![
        condition("PodScheduled", true, report.created),
        condition("Initialized", report.initialized, report.created),
        condition(
            "ContainersReady",
            report.initialized && report.containers_ready(),
            since_ready,
        ),
        condition("Ready", report.ready(), since_ready),
    ]
}

fn container_status(container: &ContainerReport, images: &[(String, String)]) -> ContainerStatus {
    let image = images
        .iter()
        .find(|(name, _)| *name == container.name)
        .map(|(_, image)| image.clone());
    ContainerStatus {
        name: container.name.clone(),
        image: image.unwrap_or_default(),
        ready: container.ready
            || (container.role == Role::Init
                && matches!(&container.state, State::Terminated(e) if e.code == 0)),
        started: Some(container.started),
        restart_count: container.restarts.cast_signed(),
        state: Some(match &container.state {
            State::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some((*reason).to_owned()),
                    message: Some(message.clone()).filter(|m| !m.is_empty()),
                }),
                ..ContainerState::default()
            },
            State::Running { since, .. } => ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(*since)),
                }),
                ..ContainerState::default()
            },
            State::Terminated(ended) => terminated(ended),
        }),
        last_state: container.last.as_ref().map(terminated),
        ..ContainerStatus::default()
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.code,
            reason: Some(ended.reason.to_owned()),
            message: Some(ended.message.clone()).filter(|m| !m.is_empty()),
            started_at: Some(Time(ended.started)),
            finished_at: Some(Time(ended.finished)),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
