#!/usr/bin/env bash
# Installs, upgrades or removes plc-edge on a Debian 12 / Ubuntu 24.04 industrial PC.
#   install.sh                  installs; where plc-edge is already there, upgrades it in place
#   install.sh --no-start       the same, without starting or restarting the service
#   install.sh --rollback       back to the version before the last upgrade
#   install.sh --uninstall      removes the program; keeps /etc/plc-edge and /var/lib/plc-edge
#   install.sh --uninstall --purge    removes those too, and the user
# From an unpacked bundle (deploy/bundle.sh makes it) it needs no internet; from a checkout it
# makes the bundle first. It may be run again at any time: it does only what is missing.
#
#   /opt/plc-edge/<version>   one virtual environment a version; `current` and `previous` point to two
#   /etc/plc-edge             config.yaml, environment, layouts     root:plc-edge, never overwritten
#   /var/lib/plc-edge         the outbox and the logs               plc-edge
#   /usr/local/bin/plc-edge   the command
set -euo pipefail
umask 022
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

here=$(cd "$(dirname "$0")" && pwd)
base=/opt/plc-edge
etc=/etc/plc-edge
state=/var/lib/plc-edge
runtime=/run/plc-edge
unit=/etc/systemd/system/plc-edge.service
command=/usr/local/bin/plc-edge
config=$etc/config.yaml
health_wait_s=30
gone_wait_s=10
need_kib=400000

say() { echo "==> $*"; }
note() { echo "    $*"; }
die() {
  echo "install.sh: $1" >&2
  shift
  for line in "$@"; do echo "    $line" >&2; done
  exit 1
}
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# -- the service --------------------------------------------------------------------------

has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

is_active() { has_systemd && systemctl is-active --quiet plc-edge; }

# Processes of the service's user, for machines without systemd.
service_pids() {
  local process owner
  for process in /proc/[0-9]*; do
    owner=$(stat -c %U "$process" 2>/dev/null) || continue
    [ "$owner" = plc-edge ] && echo "${process#/proc/}"
  done
  return 0
}

start_by_hand() {
  note "No systemd runs here (container, chroot?), so nothing was started. By hand:"
  note "  install -d -o plc-edge -g plc-edge -m 0700 $runtime && plc-edge run --config $config"
}

# snapshot RELEASE: "up NAME PID" or "down NAME STATE" per process, "dead WHY" where nobody answers.
snapshot() {
  { timeout 15 "$1/plc-edge" status --json --config "$config" 2>/dev/null || true; } |
    "$1/bin/python" -c '
import json, sys
try:
    status = json.load(sys.stdin)
except ValueError:
    print("dead plc-edge status gave no answer")
    sys.exit()
for problem in status["problems"]:
    if problem["code"] in ("metrics_down", "not_running"):
        print("dead", problem["text"])
for p in sorted(status["processes"], key=lambda p: p["name"]):
    print("up" if p["up"] else "down", p["name"], p["pid"] if p["up"] else p["state"])
' 2>/dev/null || echo "dead plc-edge status gave no answer"
}

# healthy RELEASE DOWN: within 30 s every process is up, but those that were down before (DOWN), and
# stays the same process for 3 s. A PLC or broker that is away is no fault of a version.
healthy() {
  local release=$1 before=$2 last='' now news end=$((SECONDS + health_wait_s))
  while [ "$SECONDS" -lt "$end" ]; do
    now=$(snapshot "$release")
    news=$(awk '$1 == "down" {print $2}' <<<"$now" | grep -vxF -e "$before" || true)
    if grep -q '^up ' <<<"$now" && ! grep -q '^dead' <<<"$now" && [ -z "$news" ]; then
      [ "$now" = "$last" ] && return 0
      last=$now
    else
      last=''
    fi
    sleep 3
  done
  grep -v '^up ' <<<"$now" | sed 's/^/    /' >&2 || true
  return 1
}

# point NAME RELEASE: the symlink changes in one step.
point() {
  ln -sfn "$2" "$base/.$1.new"
  mv -T "$base/.$1.new" "$base/$1"
}

release_of() { if [ -L "$base/$1" ]; then readlink -f "$base/$1"; fi; }

# take RELEASE: makes it what runs at the next start, with the unit it was made with.
take() {
  point current "$1"
  mkdir -p "$(dirname "$unit")" "$(dirname "$command")"
  cmp -s "$1/plc-edge.service" "$unit" || install -m 0644 "$1/plc-edge.service" "$unit"
  ln -sfn "$base/current/plc-edge" "$command"
  if has_systemd; then systemctl daemon-reload; fi
}

# accepts RELEASE: whether it understands the present configuration, as the service's user.
accepts() { "$1/plc-edge" check --config "$config" >"$base/.check.log" 2>&1; }

# -- preparing ----------------------------------------------------------------------------

need_root() {
  [ "$(id -u)" = 0 ] || die "must run as root" "sudo $0 $*"
}

# One at a time; the lock ends with this process.
lock() {
  mkdir -p "$base"
  exec 9>"$base/.lock"
  flock -n 9 || die "another install.sh is at work in $base" "wait until it has ended"
}

of_bundle() { sed -n "s/^$1=//p" "$here/BUNDLE"; }

# From a checkout: make the bundle as the user who called sudo, then go on from there.
from_checkout() {
  local folder python version
  [ -f "$here/../pyproject.toml" ] ||
    die "$here holds neither a bundle (BUNDLE, wheels/) nor a checkout of plc-edge" \
      "unpack the bundle anew (tar xf plc-edge-….tar.gz) and run the install.sh in it"
  python=$(find_python) || exit 1
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  made=$(mktemp -d)
  trap 'rm -rf "$made"' EXIT
  folder=$made
  say "Making the bundle from this checkout (needs internet)"
  if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
    chown "$SUDO_USER" "$folder"
    sudo -u "$SUDO_USER" "$here/bundle.sh" --out "$folder/bundle.tar.gz" --python "$version"
  else
    "$here/bundle.sh" --out "$folder/bundle.tar.gz" --python "$version"
  fi
  tar -xzf "$folder/bundle.tar.gz" -C "$folder"
  folder=$(echo "$folder"/plc-edge-*/)
  "$folder/install.sh" "$@"
}

# The distribution's own Python first: security updates come to that one.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$candidate"
    return 0
  done
  die "plc-edge needs Python 3.11 or newer; this PC has $(python3 --version 2>&1 || echo none)" \
    "apt-get install python3 (Debian 12 and Ubuntu 24.04 have a new enough one)"
}

preflight() {
  local arch free_kib
  (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS >&2) ||
    die "the bundle in $here is damaged (see above)" "copy and unpack it again"
  arch=$(uname -m)
  [ "$arch" = "$(of_bundle arch)" ] ||
    die "this PC is $arch, the bundle in $here is for $(of_bundle arch)" \
      "make one for it: deploy/bundle.sh --arch $arch"
  python=$(find_python) || exit 1
  python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  case " $(of_bundle python) " in
    *" $python_version "*) ;;
    *) die "this PC has Python $python_version, the bundle in $here is for $(of_bundle python)" \
      "make one for it: deploy/bundle.sh --python $python_version" ;;
  esac
  free_kib=$(df -Pk "$base" | awk 'NR == 2 {print $4}')
  [ "$free_kib" -ge "$need_kib" ] ||
    die "$base has $((free_kib / 1024)) MiB free; a version needs $((need_kib / 1024))" \
      "free some space, or remove a version that neither current nor previous names"
}

make_user() {
  getent passwd plc-edge >/dev/null && return 0
  say "Making the system user plc-edge"
  getent group plc-edge >/dev/null || groupadd --system plc-edge
  useradd --system --gid plc-edge --no-create-home --home-dir "$state" \
    --shell /usr/sbin/nologin plc-edge
}

make_folders() {
  install -d -o root -g plc-edge -m 0750 "$etc" "$etc/layouts"
  install -d -o plc-edge -g plc-edge -m 0700 "$state"
  local layout
  for layout in "$here"/layouts/*.yaml; do
    [ -e "$etc/layouts/${layout##*/}" ] ||
      install -o root -g plc-edge -m 0640 "$layout" "$etc/layouts/"
  done
  if [ ! -e "$config" ]; then
    say "Writing $config from the example"
    install -o root -g plc-edge -m 0640 "$here/config.example.yaml" "$config"
  fi
  if [ ! -e "$etc/environment" ]; then
    install -o root -g plc-edge -m 0640 /dev/null "$etc/environment"
    cat >"$etc/environment" <<'TEXT'
# The service's environment: secrets for ${NAME} in config.yaml, overrides PLC_EDGE__….
# One NAME=value a line, without quotes.
TEXT
  fi
}

# Untouched since it was made from the example of this version, or of the one in use.
is_example() {
  cmp -s "$config" "$here/config.example.yaml" ||
    cmp -s "$config" "$base/current/share/plc-edge/config.example.yaml"
}

# make_release: $release holds this bundle, complete, when it returns.
make_release() {
  local digest version
  version=$(of_bundle version)
  digest=$(sha256sum "$here/SHA256SUMS" | cut -c 1-64)
  release=$base/$version
  # The same number, built from something else, is another release.
  if [ -e "$release/.complete" ] && [ "$(<"$release/.complete")" != "$digest" ]; then
    release=$base/$version-${digest:0:8}
  fi
  if [ -e "$release/.complete" ]; then
    say "Version ${release##*/} is installed already"
    return 0
  fi
  say "Installing version ${release##*/} with Python $python_version into $release"
  rm -rf "$release"
  trap 'rm -rf "$release"' EXIT
  "$python" -m venv --without-pip "$release"
  # Nothing of the caller's configuration: only these wheels, only with these hashes.
  env -u PIP_FIND_LINKS "$release/bin/python" -I "$(echo "$here"/wheels/pip-*.whl)/pip" --isolated \
    install --quiet --disable-pip-version-check --no-cache-dir --root-user-action ignore \
    --no-compile --no-index --find-links "$here/wheels" --only-binary :all: --no-deps \
    --require-hashes -r "$here/requirements.txt" ||
    die "the packages of $here could not be installed (see above)" "the PC is as it was"
  # A reader starts in 0.2 s only from compiled bytecode, and the service may not write here.
  "$release/bin/python" -m compileall -q "$release/lib" ||
    die "compiling $release/lib failed (see above)" "the PC is as it was"
  install -m 0755 "$here/plc-edge.sh" "$release/plc-edge"
  install -m 0644 "$here/plc-edge.service" "$release/plc-edge.service"
  install -m 0755 "$here/install.sh" "$release/install.sh"
  echo "$digest" >"$release/.complete"
  trap - EXIT
}

# What neither link names any more.
prune() {
  local old
  for old in "$base"/*/; do
    old=${old%/}
    [ -L "$old" ] && continue
    [ "$old" = "$(release_of current)" ] || [ "$old" = "$(release_of previous)" ] && continue
    say "Removing the old version ${old##*/}"
    rm -rf "$old"
  done
}

# -- the verbs ----------------------------------------------------------------------------

install_or_upgrade() {
  local old former='' before='' start=$1
  [ -f "$here/BUNDLE" ] || { from_checkout "${@:2}"; return; }
  lock
  preflight
  make_user
  make_folders
  make_release
  old=$(release_of current)
  if is_example; then
    take "$release"
    if has_systemd; then systemctl --quiet enable plc-edge; fi
    say "Installed ${release##*/}. $config is still the example, so nothing was started. Next:"
    note "1. edit $config (and $etc/environment, or password_file:, for passwords)"
    note "2. plc-edge check"
    if has_systemd; then note "3. systemctl start plc-edge; plc-edge status"; else start_by_hand; fi
    return 0
  fi
  if ! accepts "$release"; then
    cat "$base/.check.log" >&2
    [ "$release" = "$old" ] ||
      die "version ${release##*/} does not accept $config (see above); nothing was changed" \
        "${old:+version ${old##*/} goes on; }mend the file and run install.sh again"
    die "$config has faults (see above); nothing was changed" "mend it: plc-edge check"
  fi
  if [ -n "$old" ] && [ "$old" != "$release" ]; then
    say "Changing from ${old##*/} to ${release##*/}"
    if is_active; then before=$(snapshot "$old" | awk '$1 == "down" {print $2}'); fi
    former=$(release_of previous)
    point previous "$old"
  fi
  take "$release"
  if ! has_systemd; then
    prune
    if [ -n "$(service_pids)" ]; then
      note "plc-edge runs (processes $(service_pids | xargs)) and keeps its old version until you restart it."
    fi
    start_by_hand
    return 0
  fi
  systemctl --quiet enable plc-edge
  if ! $start; then
    prune
    say "Installed ${release##*/}, not started (--no-start): systemctl restart plc-edge"
    return 0
  fi
  if [ "$old" = "$release" ] && is_active; then
    say "Version ${release##*/} runs already; nothing to do"
    return 0
  fi
  say "Starting ${release##*/}; it has $health_wait_s s to be healthy"
  if systemctl restart plc-edge && healthy "$release" "${before:-}"; then
    prune
    say "plc-edge ${release##*/} runs: plc-edge status"
    return 0
  fi
  if [ -z "$old" ] || [ "$old" = "$release" ]; then
    die "plc-edge ${release##*/} is not healthy (see above)" \
      "see why: journalctl -u plc-edge -n 50; plc-edge status; $state/log/*.log"
  fi
  say "Version ${release##*/} is not healthy: going back to ${old##*/}"
  take "$old"
  if [ -n "$former" ]; then point previous "$former"; else rm "$base/previous"; fi
  if systemctl restart plc-edge && healthy "$old" "${before:-}"; then
    prune
    die "version ${release##*/} did not become healthy within $health_wait_s s; ${old##*/} runs again" \
      "see why: journalctl -u plc-edge -n 100; $state/log/*.log"
  fi
  die "neither ${release##*/} nor, afterwards, ${old##*/} became healthy; ${old##*/} is in place" \
    "see why: plc-edge status; journalctl -u plc-edge -n 100; $state/log/*.log"
}

rollback() {
  local now before
  lock
  now=$(release_of current) before=$(release_of previous)
  [ -d "$before" ] ||
    die "there is no previous version in $base to go back to" \
      "install the wanted one from its bundle"
  accepts "$before" || {
    cat "$base/.check.log" >&2
    die "version ${before##*/} does not accept $config (see above); nothing was changed" \
      "put back the configuration of that version, then run this again"
  }
  say "Going back from ${now##*/} to ${before##*/}"
  take "$before"
  point previous "$now"
  if ! has_systemd; then start_by_hand; return 0; fi
  if ! systemctl restart plc-edge || ! healthy "$before" ''; then
    die "version ${before##*/} is in place but not healthy (see above)" \
      "plc-edge status; journalctl -u plc-edge -n 100. --rollback again returns to ${now##*/}"
  fi
  say "plc-edge ${before##*/} runs: plc-edge status"
}

uninstall() {
  local purge=$1 pids waited_s
  if has_systemd && [ -e "$unit" ]; then
    systemctl --quiet disable --now plc-edge || true # why not; what runs on is told below
  fi
  # The unit has stopped when its main process has: what systemd then kills takes a moment to go.
  for ((waited_s = 0; ; waited_s++)); do
    pids=$(service_pids | xargs)
    if [ -z "$pids" ] || [ "$waited_s" -ge "$gone_wait_s" ]; then break; fi
    sleep 1
  done
  [ -z "$pids" ] ||
    die "plc-edge still runs (processes $pids)" "end what \`plc-edge run\` started, then try again"
  say "Removing the program"
  rm -f "$unit" "$command"
  rm -rf "$base" "$runtime"
  if has_systemd; then systemctl daemon-reload; fi
  if ! $purge; then
    say "Kept: $etc (configuration), $state (outbox, logs), the user plc-edge. --purge removes them."
    return 0
  fi
  say "Removing $etc, $state and the user plc-edge"
  rm -rf "$etc" "$state"
  rm -rf /etc/systemd/system/plc-edge.service.d
  if getent passwd plc-edge >/dev/null; then userdel plc-edge; fi
  if getent group plc-edge >/dev/null; then groupdel plc-edge; fi
}

verb=install start=true purge=false
for argument in "$@"; do
  case $argument in
    --no-start) start=false ;;
    --rollback) verb=rollback ;;
    --uninstall) verb=uninstall ;;
    --purge) purge=true ;;
    *) usage ;;
  esac
done
if $purge && [ $verb != uninstall ]; then usage; fi
need_root "$@"
case $verb in
  install) install_or_upgrade $start "$@" ;;
  rollback) rollback ;;
  uninstall) uninstall $purge ;;
esac
