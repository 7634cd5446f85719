#!/bin/sh
# Starts startgate anew, at once, when it has died: a kubelet would wait for 10 s and longer, and starts would go unseen.
# What it says itself (1: failure, 2: usage, 3: this host can't) ends the container, as do the signals that end it.
child=
ended=
trap 'ended=1; kill -TERM "$child" 2>/dev/null' TERM INT
trap 'kill -HUP "$child" 2>/dev/null' HUP
trap 'kill -USR2 "$child" 2>/dev/null' USR2

case ${1-} in
daemon) ;;
*) exec startgate "$@" ;;
esac

while :; do
    startgate "$@" &
    child=$!
    # wait(1) also returns for a signal that is trapped: its number and 128.
    while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done
    [ -z "$ended" ] || exit "$code"
    [ "$code" -gt 128 ] || exit "$code"
    echo "startgate ended by signal $((code - 128)): started again" >&2
done
