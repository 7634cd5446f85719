#!/bin/sh
# Makes the user group; nothing is started or enabled.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers startgate.conf
else
    groupadd --system --force startgate
fi
chmod 0700 /etc/startgate
[ ! -d /run/systemd/system ] || systemctl daemon-reload
