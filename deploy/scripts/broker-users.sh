#!/usr/bin/env bash
# Passwords of the broker's accounts, never in clear on a command line or in the password file.
#   broker-users.sh --users infra/mosquitto/users.txt --secrets DIR
#       for each account: DIR/mqtt-<account>.pw, made where it is missing (32 random bytes), and
#       DIR/passwd with their hashes, replaced whole; accounts that left the list lose access.
#   broker-users.sh --rotate ACCOUNT --users … --secrets DIR    a new password for one account
#   broker-users.sh --dynsec infra/mosquitto/dynamic-security.json.in --users … --secrets DIR
#       also DIR/dynamic-security.json, with which a broker begins whose accounts the control plane
#       keeps; one that runs already has its own: there `mosquitto_ctrl dynsec setClientPassword`
#   broker-users.sh --nats infra/nats/accounts.conf.in --users infra/nats/users.txt --secrets DIR
#       instead of DIR/passwd DIR/accounts.conf, the same for every node of a NATS cluster
# Afterwards: SIGHUP to the broker, each node of it. Give each box its own file only.
set -euo pipefail
umask 077

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }

users='' secrets='' rotate='' dynsec='' nats=''
while [ $# -gt 0 ]; do
  case $1 in
    --users) users=${2:?}; shift 2 ;;
    --secrets) secrets=${2:?}; shift 2 ;;
    --dynsec) dynsec=${2:?}; shift 2 ;;
    --nats) nats=${2:?}; shift 2 ;;
    --rotate) rotate=${2:?}; shift 2 ;;
    *) usage ;;
  esac
done
if [ -z "$users" ] || [ -z "$secrets" ]; then usage; fi
PATH=$PATH:/usr/bin:/usr/sbin
[ -n "$nats" ] || command -v mosquitto_passwd >/dev/null || { echo "mosquitto_passwd is missing: apt-get install mosquitto" >&2; exit 1; }
mkdir -p "$secrets"

accounts=()
while read -r account; do
  case $account in '' | '#'*) continue ;; esac
  [[ $account =~ ^[A-Za-z0-9._-]+$ ]] || { echo "bad account name in $users: $account" >&2; exit 2; }
  accounts+=("$account")
done <"$users"
[ ${#accounts[@]} -gt 0 ] || { echo "$users names no account" >&2; exit 2; }
if [ -n "$rotate" ]; then
  printf '%s\n' "${accounts[@]}" | grep -qxF -- "$rotate" || { echo "$rotate is not in $users" >&2; exit 2; }
  rm -f "$secrets/mqtt-$rotate.pw"
fi

temporary=$(mktemp "$secrets/passwd.XXXXXX")
trap 'rm -f "$temporary"' EXIT
for account in "${accounts[@]}"; do
  file=$secrets/mqtt-$account.pw
  [ -s "$file" ] || head -c 32 /dev/urandom | base64 | tr -d '=+/\n' >"$file"
  printf '%s:%s\n' "$account" "$(tr -d '\r\n' <"$file")"
done >"$temporary"
if [ -n "$nats" ]; then
  # NATS takes bcrypt. Cost 5: nobody guesses 32 random bytes, and when a node is lost all its boxes
  # log in at once. Passwords come through a file of mode 0600, sed's script through a pipe.
  perl -F: -lane '
    BEGIN { @c = (".", "/", "A".."Z", "a".."z", 0..9); open R, "<", "/dev/urandom" or die }
    read R, $r, 22;
    @r = map { $c[ord($_) % 64] } split //, $r;
    $r[21] = (".", "O", "e", "u")[ord(substr $r, 21) % 4];
    print "s|\@$F[0]:bcrypt\@|", crypt($F[1], "\$2b\$05\$" . join "", @r), "|g"
  ' "$temporary" | sed -f /dev/stdin "$nats" >"$secrets/accounts.conf.new"
  if grep -q ':bcrypt@' "$secrets/accounts.conf.new"; then
    echo "an account of $nats is not in $users: render both anew" >&2
    exit 1
  fi
  mv "$secrets/accounts.conf.new" "$secrets/accounts.conf"
  echo "${#accounts[@]} accounts in $secrets/accounts.conf"
  exit 0
fi
# -U hashes a file of clear passwords in place: none is ever an argument.
mosquitto_passwd -U "$temporary" >/dev/null
grep -qv '^[^:]*:\$[67]\$' "$temporary" && { echo "mosquitto_passwd left a clear password" >&2; exit 1; }
mv "$temporary" "$secrets/passwd"
trap - EXIT
if [ -n "$dynsec" ]; then
  # The plugin keeps the same hash: $7$iterations$salt$hash. sed reads its script from a pipe.
  while IFS='$' read -r account _ iterations salt hash; do
    for pair in "hash@|$hash" "salt@|$salt" "iterations@|$iterations"; do
      printf 's|@%s%s|g\n' "$account" "$pair"
    done
  done <"$secrets/passwd" | sed -f /dev/stdin "$dynsec" >"$secrets/dynamic-security.json.new"
  mv "$secrets/dynamic-security.json.new" "$secrets/dynamic-security.json"
fi
echo "${#accounts[@]} accounts in $secrets/passwd"
