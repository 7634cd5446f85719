#!/bin/bash
# Installs the Debian packages that are missing. Silent where none is; one sentence where it can't be done.
set -eu
cd "$(dirname "$0")/.."

if ! command -v dpkg-query >/dev/null; then
  echo "not a Debian or Ubuntu machine: what is here is used as it is. The tests want what these packages hold: $*"
  exit 0
fi
missing=$(comm -13 <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
  awk '$2 == "installed" {print $1}' | sort) <(printf '%s\n' "$@" | sort -u) | tr '\n' ' ')
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "packages are missing; as root: apt-get install --no-install-recommends $missing"
  exit 1
fi

echo "installing $missing"
mkdir -p build
# One at a time: a second checkout's make waits here.
if ! DEBIAN_FRONTEND=noninteractive flock /var/lib/apt/lists sh -c '
  apt-get update -q && apt-get install -y -q --no-remove --no-install-recommends "$@"' sh $missing >build/apt.log 2>&1
then
  grep '^E:' build/apt.log | head -n 2
  echo "apt could not install $missing; all that it said is in build/apt.log. Is there a network?"
  exit 1
fi
