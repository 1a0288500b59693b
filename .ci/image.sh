#!/usr/bin/env bash
# Make the small image that the demo and the tests run: static busybox, imported; needs no registry.
#   image.sh ENGINE-URL [REFERENCE]
set -euo pipefail
url=${1:?usage: image.sh ENGINE-URL [REFERENCE]}
reference=${2:-gpubid/busybox:test}
docker -H "$url" image inspect "$reference" >/dev/null 2>&1 && exit 0
sudo_() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! [ -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then
    command -v apt-get >/dev/null || { echo "image: install a static busybox at /bin/busybox" >&2; exit 1; }
    echo "image: installing busybox-static" >&2
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    sudo_ env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends busybox-static >/dev/null
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,tmp,root,proc,sys,dev,var/www,usr/bin}
chmod 1777 "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
for name in $(/bin/busybox --list | grep -vx busybox); do ln -sf busybox "$root/bin/$name"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >>"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo 'hello from gpubid' >"$root/var/www/index.html"
tar -C "$root" --owner=0 --group=0 -c . | docker -H "$url" import --change 'CMD ["/bin/sh"]' --change 'ENV PATH=/bin:/usr/bin' - "$reference" >/dev/null
