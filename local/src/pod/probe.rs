//! Probes: one attempt, and what a row of attempts means.
//!
//! Attempts are made from inside the pod's network namespace to the pod's own address. That stays on its loopback
//! interface, which the redirect rules leave alone, so probes reach the application itself even under strict mutual TLS.
//! [`Streak`] is pure. Used by [`super::lifecycle`].

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::exec::Exec;
use crate::sys;

/// How a probe reaches its container.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The pod's network namespace.
    pub(crate) netns: String,
    /// The pod's address.
    pub(crate) ip: IpAddr,
    /// Runs commands in the container.
    pub(crate) exec: Exec,
    /// The container, for its named ports.
    pub(crate) container: Container,
}

/// One attempt under the probe's timeout; an error says why it failed.
pub(crate) async fn attempt(probe: &Probe, target: &Target) -> Result<(), String> {
    let limit = seconds(probe.timeout_seconds, 1);
    let check = async {
        if let Some(action) = &probe.exec {
            exec(action, target).await
        } else if let Some(action) = &probe.http_get {
            http_get(action, target).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp(action, target).await
        } else if let Some(action) = &probe.grpc {
            grpc(action, target).await
        } else {
            Err("the probe has no action".into())
        }
    };
    match tokio::time::timeout(limit, check).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

async fn exec(action: &ExecAction, target: &Target) -> Result<(), String> {
    let (code, output) = target
        .exec
        .run(action.command.as_deref().unwrap_or_default())
        .await?;
    if code == 0 {
        Ok(())
    } else {
        Err(format!("exit code {code}: {}", output.trim()))
    }
}

async fn tcp(action: &TCPSocketAction, target: &Target) -> Result<(), String> {
    connect(target, action.host.as_deref(), &action.port)
        .await
        .map(drop)
}

/// An HTTP/1.1 GET; 200 to 399 is success, as for the kubelet.
pub(crate) async fn http_get(action: &HTTPGetAction, target: &Target) -> Result<(), String> {
    if action
        .scheme
        .as_deref()
        .is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http"))
    {
        return Err(
            "httpGet with scheme HTTPS is not supported in local mode; use tcpSocket or exec"
                .into(),
        );
    }
    let mut stream = connect(target, action.host.as_deref(), &action.port).await?;
    let peer = stream.peer_addr().map_err(|e| e.to_string())?;
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = format!(
        "GET {slash}{path} HTTP/1.1\r\nUser-Agent: kube-probe/weft\r\nAccept: */*\r\nConnection: close\r\n"
    );
    let mut has_host = false;
    for header in action.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        let _ = write!(request, "{}: {}\r\n", header.name, header.value);
    }
    if !has_host {
        let _ = write!(request, "Host: {peer}\r\n");
    }
    request += "\r\n";
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| format!("{peer}: {e}"))?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.contains(&b'\n') && answer.len() < 16 << 10 {
        if stream
            .read_buf(&mut answer)
            .await
            .map_err(|e| format!("{peer}: {e}"))?
            == 0
        {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<u16>().ok());
    match status {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("HTTP status {status} from {peer}{slash}{path}")),
        None => Err(format!("{peer} does not answer in HTTP")),
    }
}

/// The gRPC health checking protocol: `grpc.health.v1.Health/Check` must answer SERVING.
async fn grpc(action: &GRPCAction, target: &Target) -> Result<(), String> {
    let stream = connect(target, None, &IntOrString::Int(action.port)).await?;
    let failed = |e: h2::Error| format!("gRPC health check: {e}");
    let (client, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let result = async {
        let request = http::Request::post(format!(
            "http://{}:{}/grpc.health.v1.Health/Check",
            "localhost", action.port
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|e| e.to_string())?;
        let mut client = client.ready().await.map_err(failed)?;
        let (answer, mut body) = client.send_request(request, false).map_err(failed)?;
        body.send_data(
            health_request(action.service.as_deref().unwrap_or_default()),
            true,
        )
        .map_err(failed)?;
        let answer = answer.await.map_err(failed)?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!(
                "gRPC health check: HTTP status {}",
                answer.status()
            ));
        }
        let trailers_only = answer.headers().get("grpc-status").cloned();
        let mut stream = answer.into_body();
        let mut message = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data.map_err(failed)?;
            let _ = stream.flow_control().release_capacity(data.len());
            message.extend_from_slice(&data);
        }
        match message.as_slice() {
            // A frame header of five bytes, then field 1 (status) as a varint; 1 is SERVING.
            [0, _, _, _, _, 8, 1, ..] => Ok(()),
            [0, _, _, _, _, ..] => Err("gRPC health check: not SERVING".into()),
            _ => Err(format!(
                "gRPC health check: status {}",
                trailers_only
                    .as_ref()
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or("unknown")
            )),
        }
    }
    .await;
    driver.abort();
    result
}

/// `HealthCheckRequest { service = 1 }` in a gRPC frame.
fn health_request(service: &str) -> bytes::Bytes {
    let mut message = Vec::with_capacity(service.len() + 7);
    if !service.is_empty() {
        message.push(0x0a);
        message.push(service.len().min(127) as u8);
        message.extend(service.bytes().take(127));
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

async fn connect(
    target: &Target,
    host: Option<&str>,
    port: &IntOrString,
) -> Result<TcpStream, String> {
    let port = resolve_port(port, &target.container)?;
    let ip = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} must be an IP address"))?,
        None => target.ip,
    };
    let address = SocketAddr::new(ip, port);
    let failed = |e: std::io::Error| format!("{address}: {e}");
    let socket = sys::in_netns(&target.netns, || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    })
    .map_err(failed)?;
    socket.connect(address).await.map_err(failed)
}

/// A port's number, by itself or by its name in the container.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let mut ports = container.ports.iter().flatten();
                ports
                    .find(|p| p.name.as_deref() == Some(name))
                    .map(|p| p.container_port)
            }
        },
    };
    let number = number.ok_or_else(|| format!("the container has no port named {port:?}"))?;
    u16::try_from(number).map_err(|_| format!("{number} is not a port"))
}

/// A probe's duration field, with its default.
pub(crate) fn seconds(field: Option<i32>, default: u32) -> Duration {
    let value = field
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(default);
    Duration::from_secs(u64::from(value))
}

/// Counts attempts in a row against a probe's thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streak {
    succeeded: u32,
    failed: u32,
    success_threshold: u32,
    failure_threshold: u32,
}

/// What the attempts so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Enough successes in a row.
    Passed,
    /// Enough failures in a row.
    Failed,
    /// Neither: what held before still holds.
    Open,
}

impl Streak {
    /// No attempt yet.
    pub(crate) fn new(probe: &Probe) -> Self {
        let threshold = |field: Option<i32>, default| {
            field
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(default)
                .max(1)
        };
        Self {
            succeeded: 0,
            failed: 0,
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
        }
    }

    /// Counts one more attempt.
    pub(crate) fn count(&mut self, success: bool) -> Verdict {
        if success {
            (self.succeeded, self.failed) = (self.succeeded + 1, 0);
        } else {
            (self.succeeded, self.failed) = (0, self.failed + 1);
        }
        if self.succeeded >= self.success_threshold {
            Verdict::Passed
        } else if self.failed >= self.failure_threshold {
            Verdict::Failed
        } else {
            Verdict::Open
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use Verdict::{Failed, Open, Passed};

    #[test]
    fn thresholds_count_in_a_row() {
        let probe = Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut streak = Streak::new(&probe);
        let verdicts: Vec<_> = [true, false, true, true, true, false, false, false]
            .into_iter()
            .map(|ok| streak.count(ok))
            .collect();
        assert_eq!(
            verdicts,
            [Open, Open, Open, Passed, Passed, Open, Failed, Failed]
        );
        let mut default = Streak::new(&Probe::default());
        assert_eq!(
            [false, false, false, true].map(|ok| default.count(ok)),
            [Open, Open, Failed, Passed]
        );
    }

    #[test]
    fn ports_by_number_and_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(resolve_port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(
            resolve_port(&IntOrString::String("http".into()), &container),
            Ok(8080)
        );
        assert_eq!(
            resolve_port(&IntOrString::String("81".into()), &container),
            Ok(81)
        );
        assert!(resolve_port(&IntOrString::String("nope".into()), &container).is_err());
        assert!(resolve_port(&IntOrString::Int(70000), &container).is_err());
    }

    #[test]
    fn health_requests_are_framed() {
        assert_eq!(health_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(
            health_request("ab").as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
    }
}
