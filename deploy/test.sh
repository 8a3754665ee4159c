#!/usr/bin/env bash
# The test suite. Installs what it needs first (OS packages with apt, the rest into .venv).
#   deploy/test.sh            lint, types, unit tests
#   deploy/test.sh --all      also process, end-to-end and chaos tests (real Mosquitto, real browser)
#   deploy/test.sh [--all] -- PYTEST-ARGUMENTS
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "$0")/common.sh"

all=false
if [ "${1:-}" = --all ]; then all=true; shift; fi
if [ "${1:-}" = -- ]; then shift; fi

if $all; then
  packages=(mosquitto mosquitto-clients chromium prometheus shellcheck debootstrap iproute2 strace
    openssl procps systemd)
  command -v npm >/dev/null || packages+=(nodejs npm)
  install_packages "${packages[@]}"
fi
make_venv requirements-dev.lock
cd "$root"
export PATH=$PATH:/usr/sbin:/sbin
bin=$root/.venv/bin
say "ruff"
"$bin/ruff" check .
"$bin/ruff" format --check .
say "mypy"
"$bin/mypy"
say "unit tests"
"$bin/pytest" -q -n 2 tests/unit "$@"
if $all; then
  say "process, end-to-end and chaos tests"
  # A file is one worker's: some tests of a file build on each other (tests/process/install).
  if ! "$bin/pytest" -q -n 2 --dist loadfile tests/process tests/e2e tests/chaos "$@"; then
    # Some tests measure time: two workers on a busy machine can break them. What failed is run
    # once more, its whole file and nothing beside it, and must pass.
    mapfile -t files < <("$bin/python" -c '
import json, pathlib
failed = json.loads(pathlib.Path(".pytest_cache/v/cache/lastfailed").read_text())
print(*sorted({name.split("::")[0] for name in failed if (pathlib.Path(name.split("::")[0])).exists()}), sep="\n")')
    say "Once more, alone: ${files[*]}"
    [ -n "${files[*]}" ] && "$bin/pytest" -q -n 0 "${files[@]}"
  fi
fi
