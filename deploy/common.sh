# Shared by demo.sh and test.sh: OS packages, virtual environment, locked dependencies.
# Sourced, not run; the caller has `set -euo pipefail`.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

# as_root CMD…: runs it as root; fails where neither root nor sudo without a question is there.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then sudo "$@"
  else return 1
  fi
}

# no_autostart CMD…: Debian starts what it installs; we only want the programs.
install_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  command -v apt-get >/dev/null || { say "No apt-get here: please install ${missing[*]}"; return 1; }
  say "Installing OS packages: ${missing[*]}"
  as_root apt-get update -qq || return 1
  # RUNLEVEL=1 keeps Debian's maintainer scripts from starting services.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The newest Python from 3.11 that can make a virtual environment.
find_python() {
  for candidate in python3.13 python3.12 python3.11 python3; do
    command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$candidate"
    return 0
  done
  echo "plc-edge needs Python 3.11 or newer" >&2
  return 1
}

# can_compile PYTHON: whether there are a C compiler and that Python's headers.
can_compile() {
  command -v cc >/dev/null &&
    "$1" -c 'import os, sys, sysconfig as s
sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'
}

# install_compiler: what builds the compiled part of a reader (services/s7/_native.c).
install_compiler() {
  local python packages=()
  python=$(find_python)
  can_compile "$python" && return 0
  command -v cc >/dev/null || packages=(gcc libc6-dev)
  packages+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev")
  install_packages "${packages[@]}"
}

# install_self: this checkout into .venv, with the compiled part of a reader where it can be built
# (without it plain Python decodes the same values, for more CPU).
install_self() {
  "$root/.venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps \
    --no-build-isolation -e "$root" 2>/dev/null ||
    "$root/.venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -e "$root"
}

# make_venv LOCK: $root/.venv with exactly what LOCK names; does nothing where it is so already.
make_venv() {
  local lock=$root/deploy/$1 stamp=$root/.venv/.locked native=$root/services/s7/_native python
  if [ -f "$stamp" ] && grep -qF "$(sha256sum <"$lock")" "$stamp"; then
    if can_compile "$root/.venv/bin/python" && [ ! "$native.abi3.so" -nt "$native.c" ]; then
      say "Building the compiled part of a reader"
      install_self
    fi
    return 0
  fi
  python=$(find_python)
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    install_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  fi
  if [ ! -x "$root/.venv/bin/python" ]; then
    say "Making the virtual environment .venv with $("$python" --version)"
    "$python" -m venv "$root/.venv"
  fi
  say "Installing the versions locked in deploy/$1"
  "$root/.venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
  install_self
  # A reader starts in 0.2 s only from compiled bytecode.
  "$root/.venv/bin/python" -m compileall -q "$root/.venv/lib" "$root/bus" "$root/services" || true
  sha256sum <"$lock" >>"$stamp"
}
