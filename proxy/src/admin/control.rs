//! Port 15000: what the proxy has in use and why it decides as it does, and the few switches. On loopback only.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::server::{Answer, json, text, wrong_method};
use super::{Running, State, explain, process, views};

const PATHS: &str = "GET /config[?full=true]  resources in use
GET /certs               the certificate and the roots
GET /explain?destination=HOST:PORT[&method=M][&path=P][&header=K:V]...
GET /memory              where memory goes
GET|PUT /log-level[?level=DIRECTIVES]
POST /drain              finish what is open, then end, as on SIGTERM
";

/// The answer to one request.
pub async fn answer(request: Parts, state: Arc<State>) -> Answer {
    let query = request.uri.query().unwrap_or_default();
    let get = request.method == Method::GET || request.method == Method::HEAD;
    match request.uri.path() {
        "/log-level" => log_level(&request.method, query, &state),
        "/drain" if request.method == Method::POST => {
            state.drain.start(Instant::now() + state.config.drain);
            text(StatusCode::ACCEPTED, "draining")
        }
        "/drain" => wrong_method("POST"),
        _ if !get => wrong_method("GET, HEAD"),
        "/" => text(StatusCode::OK, PATHS),
        "/memory" => match process::Memory::read() {
            Ok(memory) => json(StatusCode::OK, &memory),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        "/certs" => with(&state, |running| {
            json(StatusCode::OK, &views::certificates(running, &state))
        }),
        "/config" => {
            let full = parameter(query, "full").is_some_and(|v| v == "true");
            with(&state, |running| {
                json(StatusCode::OK, &views::config(running, &state, full))
            })
        }
        "/explain" => match (state.running.get(), explain::Request::parse(query)) {
            (None, _) => not_yet(),
            (_, Err(error)) => text(StatusCode::BAD_REQUEST, error.to_string()),
            (Some(running), Ok(request)) => explained(running, &state, &request).await,
        },
        _ => text(StatusCode::NOT_FOUND, PATHS),
    }
}

async fn explained(running: &Running, state: &State, request: &explain::Request) -> Answer {
    // Boxed: it is rare, and its state would weigh on every other request's.
    match Box::pin(explain::explain(running, &state.config, request)).await {
        Ok(explanation) => json(StatusCode::OK, &explanation),
        Err(error) => text(StatusCode::NOT_FOUND, error.to_string()),
    }
}

fn with(state: &State, answer: impl FnOnce(&Running) -> Answer) -> Answer {
    state.running.get().map_or_else(not_yet, answer)
}

fn not_yet() -> Answer {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "there is no identity yet; /ready on the health port says why",
    )
}

fn log_level(method: &Method, query: &str, state: &State) -> Answer {
    match *method {
        Method::GET | Method::HEAD => text(StatusCode::OK, state.log.get()),
        Method::PUT | Method::POST => match parameter(query, "level") {
            Some(level) => match state.log.set(&level) {
                Ok(()) => {
                    tracing::warn!(level, "the log level was changed");
                    text(StatusCode::OK, state.log.get())
                }
                Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
            },
            None => text(
                StatusCode::BAD_REQUEST,
                "say which: /log-level?level=warn,weft_proxy=debug",
            ),
        },
        _ => wrong_method("GET, HEAD, PUT, POST"),
    }
}

/// The first value of a query parameter, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    explain::parameters(query)
        .find(|(key, _)| key == name)
        .map(|(_, v)| v)
}
