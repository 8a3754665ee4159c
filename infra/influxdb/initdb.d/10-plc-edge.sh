#!/bin/bash
# Rendered by `plc-edge infra render`. Organisations, buckets, tokens and tasks of InfluxDB 2.
# The container runs it once, at its first start; after a new tenant or plan run it again:
#   docker compose exec influxdb /docker-entrypoint-initdb.d/10-plc-edge.sh
# Tokens are readable only when they are made (from 2.9 InfluxDB keeps their hashes): they go to
# files in $TOKENS, one per writer and reader; an existing file is left alone.
set -euo pipefail
umask 027

TOKENS=${TOKENS:-/tokens}
TASKS=${TASKS:-/etc/plc-edge/tasks}

say() { echo "plc-edge: $*"; }

# first COMMAND…: the first column of the first line of an influx list; empty where there is none.
first() { "$@" --hide-headers 2>/dev/null | head -n 1 | cut -f 1 || true; }

organisation() {
  local id
  id=$(first influx org list --name "$1")
  if [ -z "$id" ]; then
    say "organisation $1"
    id=$(first influx org create --name "$1")
  fi
  [ -n "$id" ] || { say "organisation $1 could not be made" >&2; exit 1; }
}

# bucket ORG NAME DAYS: made, or its retention brought to DAYS. Sets $bucket_id.
bucket() {
  bucket_id=$(first influx bucket list --org "$1" --name "$2")
  if [ -z "$bucket_id" ]; then
    say "bucket $1/$2, $3 days"
    bucket_id=$(first influx bucket create --org "$1" --name "$2" --retention "$3d")
  else
    influx bucket update --id "$bucket_id" --retention "$3d" >/dev/null
  fi
  [ -n "$bucket_id" ] || { say "bucket $1/$2 could not be made" >&2; exit 1; }
}

# token FILE ORG DESCRIPTION FLAG…: a token with these rights alone, into FILE.
token() {
  local name=$1 file=$TOKENS/$1 org=$2 description=$3 value
  shift 3
  if [ -s "$file" ]; then return 0; fi
  # Never printed: --json, and only the token's value goes on.
  value=$(influx auth create --org "$org" --description "$description" --json "$@" |
    sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' | head -n 1)
  [ -n "$value" ] || { say "no token for $description" >&2; exit 1; }
  printf '%s' "$value" >"$file.new"
  chmod 640 "$file.new"
  mv "$file.new" "$file"
  say "token $name"
}

# task ORG FILE: made, or replaced by what the file says now.
task() {
  local name id
  name=$(sed -n 's/.*option task = {name: "\([^"]*\)".*/\1/p' "$2")
  id=$(influx task list --org "$1" --hide-headers 2>/dev/null |
    awk -F '\t+' -v name="$name" '{gsub(/ +$/, "", $2)} $2 == name {print $1; exit}' || true)
  if [ -n "$id" ]; then
    influx task update --id "$id" --file "$2" >/dev/null
  else
    say "task $1/$name"
    influx task create --org "$1" --file "$2" >/dev/null
  fi
}

mkdir -p "$TOKENS"
telegraf=$TOKENS/telegraf.env
: >"$telegraf.new"
# writer VARIABLE FILE: hands a token to Telegraf's environment file.
writer() { printf "%s='%s'\n" "$1" "$(cat "$TOKENS/$2")" >>"$telegraf.new"; }

organisation plataforma
bucket plataforma platform_metrics 30
token plataforma-escrita plataforma "telegraf: platform_metrics" --write-bucket "$bucket_id"
token plataforma-leitura plataforma "grafana" --read-bucket "$bucket_id"
writer INFLUX_TOKEN_PLATAFORMA plataforma-escrita

# --- acme (pro)
organisation acme
read=()
bucket acme processo_raw 7
read+=(--read-bucket "$bucket_id")
token acme-raw-escrita acme "telegraf: processo_raw" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_ACME_RAW acme-raw-escrita
bucket acme processo 30
read+=(--read-bucket "$bucket_id")
token acme-processo-escrita acme "telegraf: processo" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_ACME_PROCESSO acme-processo-escrita
bucket acme processo_1m 180
read+=(--read-bucket "$bucket_id")
bucket acme processo_1h 365
read+=(--read-bucket "$bucket_id")
bucket acme platform_metrics 30
read+=(--read-bucket "$bucket_id")
token acme-plataforma-escrita acme "telegraf: platform_metrics" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_ACME_PLATAFORMA acme-plataforma-escrita
token acme-leitura acme "grafana" "${read[@]}"
for file in plc_edge_1m plc_edge_1h plc_edge_1m_recalculo_7d plc_edge_1h_recalculo_7d; do
  task acme "$TASKS/$file.flux"
done

# --- beta (pro)
organisation beta
read=()
bucket beta processo_raw 7
read+=(--read-bucket "$bucket_id")
token beta-raw-escrita beta "telegraf: processo_raw" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_BETA_RAW beta-raw-escrita
bucket beta processo 30
read+=(--read-bucket "$bucket_id")
token beta-processo-escrita beta "telegraf: processo" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_BETA_PROCESSO beta-processo-escrita
bucket beta processo_1m 180
read+=(--read-bucket "$bucket_id")
bucket beta processo_1h 365
read+=(--read-bucket "$bucket_id")
bucket beta platform_metrics 30
read+=(--read-bucket "$bucket_id")
token beta-plataforma-escrita beta "telegraf: platform_metrics" --write-bucket "$bucket_id"
writer INFLUX_TOKEN_BETA_PLATAFORMA beta-plataforma-escrita
token beta-leitura beta "grafana" "${read[@]}"
for file in plc_edge_1m plc_edge_1h plc_edge_1m_recalculo_7d plc_edge_1h_recalculo_7d; do
  task beta "$TASKS/$file.flux"
done

chmod 640 "$telegraf.new"
mv "$telegraf.new" "$telegraf"
say "done"
