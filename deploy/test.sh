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
  packages=(mosquitto mosquitto-clients chromium prometheus prometheus-alertmanager shellcheck
    debootstrap iproute2 strace openssl procps systemd postgresql
    victoria-metrics)
  command -v mvn >/dev/null || packages+=(maven)
  command -v javac >/dev/null || packages+=(default-jdk-headless)
  command -v npm >/dev/null || packages+=(nodejs npm)
  install_packages "${packages[@]}"
fi
install_compiler
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
  "$bin/pytest" -q -n 2 --dist loadfile -m "not timing" tests/process tests/e2e tests/chaos "$@"
  say "tests that measure time: nothing of ours runs beside them"
  "$bin/pytest" -q -m timing tests/process tests/e2e tests/chaos "$@"
  say "a few figures, for information only (all: python -m tests.bench)"
  "$bin/python" -m tests.bench --quick || say "a bench could not run"
fi
