#!/usr/bin/env bash
# Makes the offline installation bundle: one file for a USB stick, with everything install.sh needs.
#   deploy/bundle.sh [--out FILE] [--python 3.11 --python 3.12 …] [--arch x86_64|aarch64]
# On the industrial PC: tar xf FILE && sudo plc-edge-*/install.sh
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "$0")/common.sh"
# Without a compiler the bundle is as good, but its readers cost more CPU.
install_compiler || say "no C compiler: the bundle's readers decode in plain Python"
make_venv requirements-dev.lock
exec "$root/.venv/bin/plc-edge" bundle "$@"
