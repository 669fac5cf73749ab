#!/bin/sh
# The image's only command: an entry point in exec form knows no build arguments.
set -eu
# Replicas differ by their host name, which is a container's id or a pod's name.
export PENSTOCK_INSTANCE="${PENSTOCK_INSTANCE:-$PENSTOCK_SERVICE-$(hostname)}"
# Python takes the shell's place, and with it the signals.
exec python -m "penstock_$PENSTOCK_SERVICE" "$@"
