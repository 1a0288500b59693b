#!/usr/bin/env bash
# Programs of the system that the tests use: a C compiler (NVML stub), strace (crash harness), iproute2 and the engine's.
set -euo pipefail
missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v strace >/dev/null || missing+=(strace)
command -v ip >/dev/null || missing+=(iproute2)
command -v dockerd >/dev/null || missing+=(docker.io)
command -v iptables >/dev/null || missing+=(iptables)
command -v curl >/dev/null || missing+=(curl ca-certificates)
command -v docker-registry >/dev/null || missing+=(docker-registry)
dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
[ ${#missing[@]} = 0 ] && exit 0
command -v apt-get >/dev/null || { echo "setup: install ${missing[*]}, then try again" >&2; exit 1; }
sudo_() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
echo "setup: installing ${missing[*]}"
sudo_ env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
sudo_ env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
