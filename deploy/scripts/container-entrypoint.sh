#!/bin/sh
# PID 1 of the container until plc-edge takes its place. Secrets come from a file, not from the
# container's environment, which `docker inspect` shows.
set -eu
if [ -r /run/secrets/agent_env ]; then
  set -a
  # shellcheck source=/dev/null
  . /run/secrets/agent_env
  set +a
fi
exec plc-edge "$@"
