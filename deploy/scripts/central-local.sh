#!/usr/bin/env bash
# The whole pipeline in one command: simulated PLCs -> two boxes -> Mosquitto (TLS, ACL) -> ingestion
# -> database -> query, with two tenants; says what it has shown, and which parts did not run.
#   central-local.sh                     ends by itself; Ctrl-C ends everything it started
#   central-local.sh --seconds 60 --keep    longer; leaves rendered files, logs and data
#   central-local.sh --containers        docker-compose.yml instead, in the foreground
# What is missing is installed from Debian or Ubuntu; a Telegraf takes part where it is on PATH.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=/dev/null
. "$root/deploy/common.sh"

if [ "${1:-}" = --containers ]; then
  shift
  docker info >/dev/null 2>&1 || {
    say "No Docker daemon answers here: start one, or leave --containers out" >&2
    exit 1
  }
  "$root/deploy/scripts/compose-prepare.sh"
  exec docker compose -f "$root/deploy/docker-compose.yml" --profile demo up --build "$@"
fi
if docker info >/dev/null 2>&1; then say "A Docker daemon answers: --containers would use it"; fi
install_packages mosquitto mosquitto-clients prometheus victoria-metrics openssl ||
  say "Packages could not be installed (no root): going on with what is here"
make_venv requirements.lock
exec "$root/.venv/bin/plc-edge" central demo "$@"
