"""Weft in the sidecar benchmark: a control plane, weft-init's rules and one weft-proxy per pod.

    cargo build --release
    BENCH/bench.py run --systems-dir bench --systems none,floor,envoy,weft

Everything is as in a mesh: the control plane reads Kubernetes objects from a directory, signs the sidecars'
certificates against service-account tokens, and serves them over xDS. WEFT_BIN_DIR names the folder of the programs (default:
target/release of this checkout).
"""
import base64
import json
import os
import subprocess
import time

from harness.pods import SERVICE_PORTS, SIDECAR_UID, VIP
from systems import Base

NAMESPACE, ISSUER, AUDIENCE = "bench", "https://bench.local", "weft-ca"
APP_PROTOCOL = {"http": "http", "grpc": "kubernetes.io/h2c", "tcp": "tcp"}
BIN_DIR = os.environ.get("WEFT_BIN_DIR") or os.path.join(os.path.dirname(__file__), "..", "target", "release")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs service-account tokens as a Kubernetes API server does (RS256)."""

    def __init__(self, directory):
        self.key = os.path.join(directory, "issuer.pem")
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key],
                       check=True, capture_output=True)
        modulus = subprocess.run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True, capture_output=True, text=True)
        n = bytes.fromhex(modulus.stdout.strip().partition("=")[2])
        self.jwks = {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "bench", "n": base64url(n), "e": "AQAB"}]}

    def token(self, pod, account):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 86400,
                  "sub": f"system:serviceaccount:{NAMESPACE}:{account}",
                  "kubernetes.io": {"namespace": NAMESPACE, "pod": {"name": pod, "uid": f"uid-{pod}"},
                                    "serviceaccount": {"name": account, "uid": f"uid-{account}"}}}
        head = base64url(json.dumps({"alg": "RS256", "kid": "bench"}).encode()) + "." + base64url(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=head.encode(), check=True, capture_output=True)
        return f"{head}.{base64url(signature.stdout)}"


def account(pod):
    return "client" if pod.name == "client" else "server"


def objects(pods):
    """The benchmark's pods and service as Kubernetes objects."""
    def meta(name, **extra):
        return {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", **extra}

    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"weft.dev/inject": "enabled"}}}
    for name in ("client", "server"):
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name)}
    for pod in pods.all:
        ports = [{"name": s, "containerPort": port} for s, (_, port) in SERVICE_PORTS.items()] if account(pod) == "server" else []
        yield {
            "apiVersion": "v1", "kind": "Pod", "metadata": meta(pod.name, labels={"app": account(pod)}),
            "spec": {"serviceAccountName": account(pod), "nodeName": "bench",
                     "initContainers": [{"name": "weft-proxy", "image": "weft", "restartPolicy": "Always"}],
                     "containers": [{"name": "app", "image": "app", "ports": ports}]},
            "status": {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}],
                       "conditions": [{"type": "Ready", "status": "True"}]}}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": meta("bench"),
           "spec": {"clusterIP": VIP, "clusterIPs": [VIP], "selector": {"app": "server"}, "ports": [
               {"name": s, "port": port, "targetPort": target, "appProtocol": APP_PROTOCOL[s]}
               for s, (port, target) in SERVICE_PORTS.items()]}}
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": meta("bench-1", labels={"kubernetes.io/service-name": "bench"}),
           "ports": [{"name": s, "port": port, "protocol": "TCP"} for s, (_, port) in SERVICE_PORTS.items()],
           "endpoints": [{"addresses": [p.ip], "conditions": {"ready": True, "serving": True, "terminating": False},
                          "targetRef": {"kind": "Pod", "name": p.name, "namespace": NAMESPACE}} for p in pods.servers]}


class System(Base):
    name = "weft"
    control = None

    def setup(self, pods, workdir, pki):
        super().setup(pods, workdir, pki)
        directory, state = self.path("objects"), self.path("control-plane")
        os.makedirs(directory)
        os.makedirs(state)
        with open(os.path.join(directory, "bench.yaml"), "w") as f:
            f.write("\n---\n".join(json.dumps(o) for o in objects(pods)))
        self.issuer = Issuer(workdir)
        with open(self.path("jwks.json"), "w") as f:
            json.dump(self.issuer.jwks, f)
        ca = pki["client"]
        self.control = pods.net.start(
            [self.stage(f"{BIN_DIR}/weft-control-plane"), "--source", directory, "--state-dir", state,
             "--ca-cert", ca.ca, "--ca-key", ca.ca_key, "--jwks", self.path("jwks.json"), "--token-issuer", ISSUER,
             "--token-audience", AUDIENCE, "--listen", f"{pods.net.ip}:15012", "--admin", f"{pods.net.ip}:15014"],
            self.path("control-plane.log"))
        pods.net.wait_port(15012, self.control)

    def redirect(self, pod):
        pod.run(self.stage(f"{BIN_DIR}/weft-init"), "apply", "--proxy-uid", str(SIDECAR_UID), "--proxy-gid", str(SIDECAR_UID))

    def start_client(self, pod):
        return [self._start(pod)]

    def start_server(self, pod):
        return [self._start(pod)]

    def _start(self, pod):
        state, token = self.path(f"state-{pod.name}"), self.path(f"token-{pod.name}")
        os.makedirs(state)
        os.chown(state, SIDECAR_UID, SIDECAR_UID)
        with open(token, "w") as f:
            f.write(self.issuer.token(pod.name, account(pod)))
        env = {"WEFT_CONTROL_PLANE": f"{self.pods.net.ip}:15012", "WEFT_ROOTS": self.pki["client"].ca, "WEFT_TOKEN": token,
               "WEFT_STATE_DIR": state, "POD_NAME": pod.name, "POD_NAMESPACE": NAMESPACE,
               "POD_SERVICE_ACCOUNT": account(pod), "POD_IPS": pod.ip, "WEFT_WORKERS": "2", "WEFT_LOG": "warn"}
        proc = pod.start([self.stage(f"{BIN_DIR}/weft-proxy")], self.path(f"proxy-{pod.name}.log"), uid=SIDECAR_UID, env=env,
                         cwd=self.workdir)
        pod.wait_port(15001, proc)
        return proc

    def support_pids(self):
        return [self.control.pid] if self.control else []

    def teardown(self):
        if self.control:
            self.control.stop()
