#!/usr/bin/env bash
# The main job in one command: simulated PLCs -> readers -> store -> MQTT broker (TLS) -> your eyes.
#   deploy/demo.sh                                two simulated PLCs
#   deploy/demo.sh --plcs 5 --seconds 60          five, for a minute
#   deploy/demo.sh --host 192.168.0.10 --db 500 [--layout F]    your own PLC
# Ctrl-C ends everything it started. It touches no other broker on this machine.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "$0")/common.sh"

lock=requirements.lock
if ! PATH=$PATH:/usr/sbin command -v mosquitto >/dev/null; then
  install_packages mosquitto mosquitto-clients || {
    say "Mosquitto cannot be installed here (no root): using an embedded broker from PyPI"
    lock=requirements-demo.lock
  }
fi
make_venv "$lock"
exec "$root/.venv/bin/plc-edge" demo "$@"
