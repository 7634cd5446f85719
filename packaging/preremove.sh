#!/bin/sh
# Ends it where it is removed for good; an upgrade leaves it running (dpkg says `upgrade`, rpm 1).
set -e
# Python's own, which no package manager knows of.
find /usr/lib/startgate -name __pycache__ -prune -exec rm -rf {} +
case "${1-}" in upgrade | 1) exit 0 ;; esac
[ ! -d /run/systemd/system ] || systemctl --quiet disable --now startgate.service || true
