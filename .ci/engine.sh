#!/usr/bin/env bash
# The Docker Engine that tests and the demo use: one that answers, or a private one in build/engine.
#   engine.sh ensure   print the URL of an engine that answers, starting a private one if need be
#   engine.sh private  the same, but never a foreign engine
#   engine.sh stop     end the private engine, if this folder started one, and all its containers
#   engine.sh url      print the URL of the private engine, whether it runs or not
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/build/engine
# A unix socket's path holds at most 107 bytes, and the checkout may lie deep: the socket has a short one of its own.
short=/run/gpubid-$(printf %s "$root" | sha256sum | cut -c1-10)
sock=$short/docker.sock
url=unix://$sock

answers() { # does an engine answer at this URL?
    curl -fsS --max-time 10 --unix-socket "${1#unix://}" http://engine/_ping >/dev/null 2>&1
}

sudo_() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_engine() {
    command -v dockerd >/dev/null && command -v iptables >/dev/null && command -v curl >/dev/null && return
    command -v apt-get >/dev/null || { echo "engine: install Docker Engine, iptables and curl, then try again" >&2; exit 1; }
    echo "engine: installing docker.io, iptables and curl" >&2
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        docker.io iptables curl ca-certificates >/dev/null
    # Debian's package starts a daemon where there is an init; that one answers at the usual socket.
}

start_private() {
    answers "$url" && return
    sudo_ mkdir -p "$dir" "$short"
    if [ -f "$short/pid" ] && ! sudo_ kill -0 "$(cat "$short/pid")" 2>/dev/null; then sudo_ rm -f "$short/pid"; fi
    sudo_ sh -c "cat >'$dir/daemon.json'" <<JSON
{
  "data-root": "$dir/data", "exec-root": "$short/exec", "pidfile": "$short/pid", "hosts": ["$url"],
  "group": "$(id -g)", "bip": "172.29.0.1/24", "live-restore": true, "log-level": "warn",
  "default-address-pools": [{"base": "172.30.0.0/15", "size": 26}]
}
JSON
    # An engine ended by kill -9 leaves its own containerd behind, which still serves this exec root.
    sudo_ sh -c "setsid dockerd --config-file '$dir/daemon.json' >>'$dir/log' 2>&1 </dev/null & echo \$! >'$short/started'"
    for _ in $(seq 240); do
        answers "$url" && return
        sudo_ kill -0 "$(cat "$short/started")" 2>/dev/null || break
        sleep 0.25
    done
    echo "engine: dockerd did not start; its last words:" >&2
    tail -n 5 "$dir/log" >&2
    exit 1
}

stop_private() {
    [ -f "$short/pid" ] || { sudo_ rm -rf "$short"; return 0; }
    if answers "$url"; then
        ids=$(docker -H "$url" ps -aq 2>/dev/null || true)
        # shellcheck disable=SC2086
        [ -z "$ids" ] || docker -H "$url" rm -f $ids >/dev/null 2>&1 || true
        docker -H "$url" network prune -f >/dev/null 2>&1 || true
    fi
    pid=$(cat "$short/pid" 2>/dev/null || true)
    if [ -n "$pid" ] && sudo_ kill -0 "$pid" 2>/dev/null; then
        sudo_ kill "$pid"
        for _ in $(seq 120); do sudo_ kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    fi
    sudo_ rm -rf "$short"
}

case "${1:-ensure}" in
    ensure)
        if [ -n "${GPUBID_TEST_DOCKER:-}" ] && answers "$GPUBID_TEST_DOCKER"; then echo "$GPUBID_TEST_DOCKER"; exit; fi
        if answers "$url"; then echo "$url"; exit; fi
        if [ -S /var/run/docker.sock ] && command -v curl >/dev/null && answers unix:///var/run/docker.sock; then
            echo unix:///var/run/docker.sock; exit
        fi
        install_engine
        if [ -S /var/run/docker.sock ] && answers unix:///var/run/docker.sock; then echo unix:///var/run/docker.sock; exit; fi
        start_private; echo "$url" ;;
    private) install_engine; start_private; echo "$url" ;;
    stop) stop_private ;;
    url) echo "$url" ;;
    *) echo "usage: engine.sh ensure|private|stop|url" >&2; exit 2 ;;
esac
