//! Port 15020: is it alive, is it ready, and the metrics. For the kubelet and for Prometheus, on every address.

use http::request::Parts;
use http::{Method, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::State;
use super::server::{Answer, text, typed, wrong_method};

/// The answer to one request.
pub fn answer(request: &Parts, state: &State, registry: &Registry) -> Answer {
    if request.method != Method::GET && request.method != Method::HEAD {
        return wrong_method("GET, HEAD");
    }
    match request.uri.path() {
        "/healthz" => text(StatusCode::OK, "alive"),
        "/ready" => match ready(state) {
            Ok(()) => text(StatusCode::OK, "ready"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        },
        "/metrics" => {
            let mut body = String::new();
            match encode(&mut body, registry) {
                Ok(()) => typed(
                    StatusCode::OK,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    body,
                ),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz, /ready and /metrics",
        ),
    }
}

/// `Err` with the reason a person needs: what is awaited, and the last error where there is one.
pub fn ready(state: &State) -> Result<(), String> {
    if state.drain.is_draining() {
        return Err(format!("draining, {} still open", state.drain.open()));
    }
    state.readiness.check().map_err(|waiting| {
        let error = match state.running.get() {
            None => state.identity_status.latest().error,
            Some(running) => running.client.state().last_error,
        };
        match error {
            Some(error) => format!("{waiting}: {error}"),
            None => waiting,
        }
    })
}
