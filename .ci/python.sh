#!/usr/bin/env bash
# Make a virtual environment, installing Debian's venv module where it is missing.
set -euo pipefail
target=${1:?usage: python.sh FOLDER}
python=python3
for name in python3 python3.11 python3.12 python3.13; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python=$name; break; fi
done
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: install Python 3.11 or newer" >&2; exit 1; }
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    sudo_() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    command -v apt-get >/dev/null || { echo "setup: install the venv module of $python" >&2; exit 1; }
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
"$python" -m venv "$target"
