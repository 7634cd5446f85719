#!/bin/sh
# Makes the root directory of the image, in the build stage: image-root.sh ROOT WHEEL.
set -eu
root=$1 wheel=$2
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends python3-venv busybox-static

python3 -m venv /opt/startgate
/opt/startgate/bin/pip install --quiet --disable-pip-version-check --no-compile "$wheel[policy]"
/opt/startgate/bin/pip uninstall --quiet --yes --disable-pip-version-check pip
rm -rf /opt/startgate/lib/python3*/site-packages/bazel-project  # the tests of a build system, in CEL's wheel
/opt/startgate/bin/python -m compileall -qq -j 0 /opt/startgate/lib || true

# Directories that others are mounted on, as the root is read-only; and what any program expects.
for directory in bin dev etc host proc run sys tmp usr/bin usr/lib var/lib/startgate; do
    mkdir -p "$root/$directory"
done
chmod 1777 "$root/tmp"
ln -s ../run "$root/var/run"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
cp -a /etc/os-release "$root/etc/" 2>/dev/null || true

# Python without what is for developers, and startgate.
python=$(readlink -f "$(command -v python3)")
standard=/usr/lib/$(basename "$python")
cp -a "$python" "$root/usr/bin/"
ln -s "$(basename "$python")" "$root/usr/bin/python3"
mkdir -p "$root$standard" "$root/opt"
cp -a "$standard/." "$root$standard/"
for part in ensurepip idlelib tkinter turtledemo lib2to3 test pydoc_data EXTERNALLY-MANAGED; do
    rm -rf "${root:?}$standard/$part"
done
rm -rf "$root$standard"/config-*
cp -a /opt/startgate "$root/opt/"

# The shared libraries of all that: what the loader would take here.
libraries() {
    { echo "$python"; find "$root$standard" "$root/opt" -name '*.so*' -type f; } | while read -r file; do
        ldd "$file" 2>/dev/null || true
    done | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\).*/\1/p' |
        grep -v "^$root" | sort -u
}
for library in $(libraries); do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
done

cp -a "$(command -v busybox)" "$root/bin/busybox"
for name in $("$root/bin/busybox" --list); do
    [ -e "$root/bin/$name" ] || ln -s busybox "$root/bin/$name"
done

# Whose these files are.
mkdir -p "$root/usr/share/doc"
for package in libc6 busybox-static "$(basename "$python")-minimal"; do
    [ -d "/usr/share/doc/$package" ] && cp -a "/usr/share/doc/$package" "$root/usr/share/doc/"
done
chroot "$root" /opt/startgate/bin/python -c 'import cel_expr_python, click, msgspec, rich, ssl
from startgate.kernel.libbpf import library
library()'
du -sm "$root" | sed 's/\t.*/ MB/'
