#!/usr/bin/env bash
# Locks the exact versions, with hashes, of everything pyproject.toml asks for.
#   requirements.lock       what runs on a plant PC
#   requirements-demo.lock  the same and an MQTT broker in Python
#   requirements-central.lock  what runs at the centre (`plc-edge central`)
#   requirements-dev.lock   all of it and the tools of deploy/test.sh
# Run it after a change in pyproject.toml and read the diff. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  uv pip compile pyproject.toml --quiet --generate-hashes --universal --python-version 3.11 \
    --no-header --no-emit-index-url "$@" >/dev/null
}
compile --extra dev --output-file deploy/requirements-dev.lock
compile --extra demo --output-file deploy/requirements-demo.lock -c deploy/requirements-dev.lock
compile --extra central --output-file deploy/requirements-central.lock -c deploy/requirements-dev.lock
compile --output-file deploy/requirements.lock -c deploy/requirements-dev.lock
