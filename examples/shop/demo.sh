#!/usr/bin/env bash
# The shop in a mesh on this machine: up, some seconds of customers, who called whom, down, and nothing left behind.
#
#   examples/shop/demo.sh            as root, after `cargo build --workspace --bins`; or `make demo`
#   KEEP=1 examples/shop/demo.sh     leaves it up and says what to try next
#   SECONDS_OF_LOAD=30               how long the customers shop before the report, 15 by default
set -euo pipefail
cd "$(dirname "$0")/../.."

name=shop
load_seconds=${SECONDS_OF_LOAD:-15}
export PATH="${CARGO_TARGET_DIR:-$PWD/target}/debug:$PATH"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "needs root, for network namespaces and redirect rules"
for program in weft weft-proxy weft-init weft-control-plane shop; do
  command -v "$program" >/dev/null || fail "no $program; run 'make demo', or 'cargo build --workspace --bins' first"
done
[ ! -e "/run/weft/$name" ] || fail "a mesh named $name is there already; 'weft local down --name $name' takes it down"

# What the machine looks like from outside the mesh. Taken before and after; any difference is something left behind.
trace() {
  echo "namespaces:"; ip netns list | sort
  echo "links:"; ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/\1/' | sort
  echo "addresses:"; ip -o addr | awk '{print $2, $3, $4}' | sort
  echo "routes:"; ip route; ip -6 route | sed -E 's/ expires [^ ]+//'
  echo "nft rules:"; nft list ruleset 2>/dev/null | sed -E 's/counter packets [0-9]+ bytes [0-9]+//'
  echo "iptables rules:"; iptables-save 2>/dev/null | grep -v '^#' | sed -E 's/\[[0-9]+:[0-9]+\]//' || true
  echo "mounts:"; awk '{print $5}' /proc/self/mountinfo | sort
  echo "processes:"; ps -eo comm= | grep -xE 'weft(-.*)?|shop|nginx|redis-server|postgres|mariadbd' | sort || true
  echo "files:"; find /run/weft /run/netns /var/lib/weft /data /etc/shop -maxdepth 1 2>/dev/null | sort || true
}

before=$(mktemp)
after=$(mktemp)
report=
finish() {
  status=$?
  trap - EXIT
  if [ "${up:-}" ]; then weft local down --name "$name" || status=1; fi
  rm -f "$before" "$after" "$report"
  exit $status
}

trace >"$before"
trap finish EXIT
trap 'exit 130' INT TERM

say "weft local up -f examples/shop/k8s --name $name"
up=1
weft local up -f examples/shop/k8s --name "$name" --detach
weft local ps --name "$name"

say "Customers shop for $load_seconds s (the load pod), and one comes from outside the mesh, by the node port"
report=$(mktemp)
shop report --objects "/run/weft/$name/objects" --seconds "$load_seconds" >"$report" &
reporting=$!
deadline=$((SECONDS + load_seconds))
until curl -sf -m 5 -H 'Accept: text/html' http://127.0.0.1:30080/ | grep -o '<h1>.*</h1>' | sed -E 's/<[^>]+>//g'; do
  [ $SECONDS -lt $deadline ] || fail "nobody answers at http://127.0.0.1:30080/"
  sleep 0.5
done
wait "$reporting"

say "Who called whom meanwhile, by the sidecars' own metrics"
cat "$report"

say "What the customers saw, retries and all, since the shop opened"
shop report --objects "/run/weft/$name/objects" --customers

if [ "${KEEP:-}" ]; then
  up=
  rm -f "$before" "$after" "$report"
  trap - EXIT
  say "Left up. Try:"
  cat <<TXT
  export PATH="$PATH"
  curl http://127.0.0.1:30080/products/loom                        # from outside, by the node port
  weft routes deploy/web --name $name                                 # what web can call, and how
  weft endpoints recommendations --name $name
  weft explain deploy/web recommendations --header x-preview=v2 --name $name
  weft identity deploy/payments --name $name                          # certificate chain and SPIFFE id
  weft local exec deploy/web --name $name -- curl -s http://catalogue/products
  weft local logs deploy/payments --name $name
  \$EDITOR examples/shop/k8s/recommendations.yaml                       # other weights, more replicas: live when saved
  shop report                                                         # the table again
  weft local down --name $name
TXT
  exit 0
fi

say "weft local down --name $name"
weft local down --name "$name"
up=
trace >"$after"
diff -u --label before --label after "$before" "$after" || fail "the lines above were left behind"
echo "Nothing left behind: no process, namespace, link, address, route, rule, mount or file."
