#!/usr/bin/env bash
# A small certificate authority, for sites without one. Needs only openssl.
#   pki.sh DIR create [NAME]              CA (10 years) and an empty CRL
#   pki.sh DIR server NAME [HOST|IP]...   certificate of a broker, database or panel (825 days)
#   pki.sh DIR node NAME [HOST|IP]...     the same of a server of a cluster: its peers' client too
#   pki.sh DIR client ACCOUNT             certificate of a broker account: its common name
#   pki.sh DIR renew NAME                 a new key and certificate like the old one
#   pki.sh DIR revoke NAME                revokes the current one and writes the CRL
#   pki.sh DIR crl                        a fresh CRL (30 days): run it weekly, then SIGHUP the broker
#   pki.sh DIR list                       every certificate: V valid, R revoked, E expired
#   pki.sh DIR expiring [DAYS]            what ends within DAYS (30); exit 1 if anything does
# Files: DIR/ca.pem, DIR/crl.pem, DIR/issued/NAME.pem, NAME.key. Keep DIR/private off the broker.
# A passphrase for the CA key: PKI_PASSPHRASE_FILE=/path (at `create` and ever after).
# Validity in days: PKI_DAYS. Tests and odd sites: PKI_START, PKI_END as YYYYMMDDHHMMSSZ.
set -euo pipefail
umask 077

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
die() { echo "pki.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || usage
dir=$1 verb=$2
shift 2
passphrase=()
if [ -n "${PKI_PASSPHRASE_FILE:-}" ]; then passphrase=(-passin "file:$PKI_PASSPHRASE_FILE"); fi
days=${PKI_DAYS:-825}

valid_name() { [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ ]] || die "bad name: $1"; }
need_ca() { [ -f "$dir/ca.pem" ] || die "$dir holds no CA: pki.sh $dir create"; }

write_config() {
  cat >"$dir/openssl.cnf" <<CONF
[ca]
default_ca = authority
[authority]
dir = $dir
database = \$dir/index.txt
serial = \$dir/serial
crlnumber = \$dir/crlnumber
new_certs_dir = \$dir/archive
certificate = \$dir/ca.pem
private_key = \$dir/private/ca.key
default_md = sha256
default_crl_days = 30
unique_subject = no
policy = any
copy_extensions = none
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
[authority_extensions]
basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
CONF
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# issue NAME EXTENSIONS: a key and a certificate beside the old ones, then both in their place.
issue() {
  local name=$1 base=$dir/issued/$1 dates=()
  printf '%s\n' "$2" >"$base.ext"
  new_key "$base.key.new"
  openssl req -new -config "$dir/openssl.cnf" -key "$base.key.new" -subj "/CN=$name" -out "$base.csr"
  dates=(-days "$days")
  if [ -n "${PKI_END:-}" ]; then dates=(-enddate "$PKI_END" -startdate "${PKI_START:?}"); fi
  openssl ca -batch -notext -config "$dir/openssl.cnf" "${passphrase[@]}" "${dates[@]}" \
    -rand_serial -in "$base.csr" -extfile "$base.ext" -out "$base.pem.new" 2>"$dir/last.log" ||
    { cat "$dir/last.log" >&2; die "no certificate for $name"; }
  mv "$base.key.new" "$base.key"
  mv "$base.pem.new" "$base.pem"
  chmod 644 "$base.pem"
  rm -f "$base.csr"
  echo "$base.pem"
}

crl() {
  openssl ca -gencrl -config "$dir/openssl.cnf" "${passphrase[@]}" -out "$dir/crl.pem.new" 2>"$dir/last.log" ||
    { cat "$dir/last.log" >&2; die "no CRL"; }
  chmod 644 "$dir/crl.pem.new"
  mv "$dir/crl.pem.new" "$dir/crl.pem"
}

case $verb in
  create)
    [ ! -e "$dir/private/ca.key" ] || die "$dir already holds a CA"
    mkdir -p "$dir/private" "$dir/issued" "$dir/archive"
    dir=$(cd "$dir" && pwd)
    : >"$dir/index.txt"
    echo 01 >"$dir/crlnumber"
    write_config
    key=$dir/private/ca.key
    if [ -n "${PKI_PASSPHRASE_FILE:-}" ]; then
      openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes-256-cbc \
        -pass "file:$PKI_PASSPHRASE_FILE" -out "$key" 2>/dev/null
    else
      new_key "$key"
    fi
    openssl req -x509 -new -config "$dir/openssl.cnf" -extensions authority_extensions \
      "${passphrase[@]}" -key "$key" -sha256 -days 3650 -subj "/CN=${1:-plc-edge CA}" -out "$dir/ca.pem"
    chmod 644 "$dir/ca.pem"
    crl
    echo "$dir/ca.pem"
    ;;
  server | node)
    need_ca
    usage=serverAuth
    if [ "$verb" = node ]; then usage+=,clientAuth; fi
    name=${1:?name of the server}; shift
    valid_name "$name"
    alternatives=DNS:$name
    for host in "$@"; do
      case $host in
        *:* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) alternatives+=,IP:$host ;;
        *) valid_name "$host"; alternatives+=,DNS:$host ;;
      esac
    done
    issue "$name" "basicConstraints=critical,CA:false
keyUsage=critical,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
extendedKeyUsage=$usage
subjectAltName=$alternatives"
    ;;
  client)
    need_ca
    name=${1:?name of the account}
    valid_name "$name"
    issue "$name" "basicConstraints=critical,CA:false
keyUsage=critical,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
extendedKeyUsage=clientAuth"
    ;;
  renew)
    need_ca
    name=${1:?name}
    valid_name "$name"
    [ -f "$dir/issued/$name.ext" ] || die "$name was never issued here"
    issue "$name" "$(cat "$dir/issued/$name.ext")"
    ;;
  revoke)
    need_ca
    name=${1:?name}
    valid_name "$name"
    [ -f "$dir/issued/$name.pem" ] || die "$name was never issued here"
    openssl ca -config "$dir/openssl.cnf" "${passphrase[@]}" -revoke "$dir/issued/$name.pem" \
      2>"$dir/last.log" || { cat "$dir/last.log" >&2; die "$name was not revoked"; }
    crl
    echo "revoked $name; copy $dir/crl.pem to the broker and send it SIGHUP"
    ;;
  crl) need_ca; crl; echo "$dir/crl.pem" ;;
  list)
    need_ca
    openssl ca -config "$dir/openssl.cnf" "${passphrase[@]}" -updatedb 2>/dev/null
    cut -f 1,2,4,6 "$dir/index.txt"
    ;;
  expiring)
    need_ca
    seconds=$((${1:-30} * 86400)) found=0
    for file in "$dir/ca.pem" "$dir"/issued/*.pem; do
      [ -f "$file" ] || continue
      openssl x509 -in "$file" -noout -checkend "$seconds" >/dev/null && continue
      echo "$file: $(openssl x509 -in "$file" -noout -enddate)"
      found=1
    done
    until=$(openssl crl -in "$dir/crl.pem" -noout -nextupdate | cut -d= -f2)
    # A CRL lasts 30 days: a week is enough warning.
    if [ "$(date -d "$until" +%s)" -lt "$(($(date +%s) + 7 * 86400))" ]; then
      echo "$dir/crl.pem: $until"
      found=1
    fi
    exit "$found"
    ;;
  *) usage ;;
esac
