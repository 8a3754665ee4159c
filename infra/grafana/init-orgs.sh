#!/bin/sh
# Rendered by `plc-edge infra render`. Makes one Grafana organisation per tenant, then ends.
# Provisioning needs the organisations' numbers before Grafana starts with it: this runs Grafana
# without provisioning, asks for the numbers and leaves them in $ORGS for the real one.
# The administrator's password comes from a file; curl reads it from a file as well, never from argv.
set -eu
umask 077

ORGS=${ORGS:-/var/lib/grafana/orgs.env}
PASSWORD_FILE=${GF_SECURITY_ADMIN_PASSWORD__FILE:?file with the password of Grafana\'s administrator}
URL=http://127.0.0.1:3999
work=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

mkdir -p "$work/provisioning"
printf 'user = "admin:%s"\n' "$(tr -d '\r\n' <"$PASSWORD_FILE")" >"$work/login"
GF_PATHS_PROVISIONING=$work/provisioning GF_SERVER_HTTP_PORT=3999 GF_SERVER_HTTP_ADDR=127.0.0.1 \
  GF_LOG_LEVEL=error /run.sh >&2 &
server=$!

tries=0
until curl -fsS -o /dev/null "$URL/api/health" 2>/dev/null; do
  tries=$((tries + 1))
  [ "$tries" -lt 120 ] || { echo "init-orgs: Grafana did not start" >&2; exit 1; }
  kill -0 "$server" 2>/dev/null || { echo "init-orgs: Grafana ended" >&2; exit 1; }
  sleep 1
done

# number NAME: the organisation's number; empty where there is none.
number() {
  curl -sS -K "$work/login" "$URL/api/orgs/name/$1" | sed -n 's/^{"id":\([0-9]*\),.*/\1/p'
}

: >"$work/orgs"
id=$(number acme)
if [ -z "$id" ]; then
  curl -fsS -K "$work/login" -H 'Content-Type: application/json' -d '{"name":"acme"}' "$URL/api/orgs" >&2
  id=$(number acme)
fi
[ -n "$id" ] || { echo "init-orgs: no organisation acme" >&2; exit 1; }
echo "export ORG_ACME=$id" >>"$work/orgs"
id=$(number beta)
if [ -z "$id" ]; then
  curl -fsS -K "$work/login" -H 'Content-Type: application/json' -d '{"name":"beta"}' "$URL/api/orgs" >&2
  id=$(number beta)
fi
[ -n "$id" ] || { echo "init-orgs: no organisation beta" >&2; exit 1; }
echo "export ORG_BETA=$id" >>"$work/orgs"
mv "$work/orgs" "$ORGS"
echo "init-orgs: done"
