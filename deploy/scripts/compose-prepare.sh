#!/usr/bin/env bash
# Everything secret that docker-compose.yml mounts, made where it is missing: certificates, broker
# passwords, administrators' passwords. Run it again after a change of the configuration.
#   compose-prepare.sh [--infra DIR] [--secrets DIR]     default: infra, deploy/secrets
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
infra=$here/../../infra secrets=$here/../secrets
while [ $# -gt 0 ]; do
  case $1 in
    --infra) infra=${2:?}; shift 2 ;;
    --secrets) secrets=${2:?}; shift 2 ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
mkdir -p "$secrets"
chmod 700 "$secrets"

random() { [ -s "$1" ] || head -c 32 /dev/urandom | base64 | tr -d '=+/\n' >"$1"; }
# environment FILE: lines NAME ACCOUNT from stdin -> NAME='password of the broker account'.
environment() {
  local name account
  while read -r name account; do
    case $name in '' | '#'*) continue ;; esac
    printf "%s='%s'\n" "$name" "$(cat "$secrets/mqtt-$account.pw")"
  done >"$1.new"
  mv "$1.new" "$1"
}

pki=$secrets/pki
[ -f "$pki/ca.pem" ] || "$here/pki.sh" "$pki" create >/dev/null
site=$(sed -n 's/^# Variables of box \([^ ]*\) .*/\1/p' "$infra/agent-secrets.txt")
[ -f "$pki/issued/mosquitto.pem" ] || "$here/pki.sh" "$pki" server mosquitto localhost 127.0.0.1 "$(hostname)"
[ -f "$pki/issued/grafana.pem" ] || "$here/pki.sh" "$pki" server grafana localhost 127.0.0.1 "$(hostname)"
[ -f "$pki/issued/metrics.pem" ] || "$here/pki.sh" "$pki" server metrics "$site" localhost 127.0.0.1
"$here/pki.sh" "$pki" crl >/dev/null
cp "$pki/ca.pem" "$pki/crl.pem" "$secrets/"
for name in mosquitto grafana metrics; do cp "$pki/issued/$name.pem" "$pki/issued/$name.key" "$secrets/"; done

dynsec=() plugin=$infra/mosquitto/dynamic-security.json.in  # of `infra render --accounts control-plane`
[ ! -e "$plugin" ] || dynsec=(--dynsec "$plugin")
"$here/broker-users.sh" --users "$infra/mosquitto/users.txt" --secrets "$secrets" ${dynsec[@]+"${dynsec[@]}"}
passwords=$infra/victoriametrics/passwords.sh  # of `infra render --database victoriametrics`
[ ! -e "$passwords" ] || TOKENS=$secrets/tokens "$passwords"
for file in influx-password influx-token grafana-password metrics.pw; do random "$secrets/$file"; done
printf admin >"$secrets/influx-user"
environment "$secrets/agent.env" <"$infra/agent-secrets.txt"
environment "$secrets/telegraf.env" <<NAMES
MQTT_PASSWORD_TELEGRAF_DADOS telegraf-1-dados
MQTT_PASSWORD_TELEGRAF_SINAIS telegraf-1-sinais
MQTT_PASSWORD_TELEGRAF_EDGE telegraf-1-edge
NAMES
variable=$(printf %s "$site" | tr 'a-z-' 'A-Z_')
printf "METRICS_PASSWORD_%s='%s'\n" "$variable" "$(cat "$secrets/metrics.pw")" >>"$secrets/telegraf.env"
printf -- '-P %s\n' "$(cat "$secrets/mqtt-saude.pw")" >"$secrets/mosquitto_sub"
# Mounted into containers that run as other users; the folder itself stays closed to them.
find "$secrets" -maxdepth 1 -type f ! -name 'mqtt-*.pw' -exec chmod 0444 {} +
[ ! -d "$secrets/tokens" ] || chmod -R u=rwX,go=rX "$secrets/tokens"
echo "secrets are in $secrets"
