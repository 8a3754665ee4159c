#!/bin/sh
# The command `plc-edge` of an installed box (/usr/local/bin/plc-edge). For root, the verbs that
# touch the running site become the service's user with the service's environment: a file that
# root wrote into /run/plc-edge could not be read by the services.
set -eu
release=$(dirname "$(readlink -f "$0")")
case ${1:-} in
  run | apply | check | status | store | doctor | read | watch | fleet) ;;
  *) exec "$release/bin/plc-edge" "$@" ;;
esac
[ "$(id -u)" = 0 ] || exec "$release/bin/plc-edge" "$@"
environment=/etc/plc-edge/environment
if [ -f "$environment" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in [A-Za-z_]*=*) export "${line?}" ;; esac
  done <"$environment"
fi
export HOME=/var/lib/plc-edge
exec setpriv --reuid=plc-edge --regid=plc-edge --init-groups --no-new-privs \
  "$release/bin/plc-edge" "$@"
