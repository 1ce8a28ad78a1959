#!/usr/bin/env bash
# Starts the stack on loopback: SoftHSM behind signerd, our two logs with their keys in it, and the programs of others around
# them. Environment as in `run`, which starts this. `REKOR=theirs` and `CT=theirs` are not known here: the logs are ours.
set -euo pipefail
cd "$WORK"
mkdir -p run log data oci hsm
P=$WORK/pki
start() {
    local name=$1
    shift
    "$@" >"log/$name.log" 2>&1 &
    echo $! >"run/$name.pid"
}
# up NAME URL: waits until it answers.
up() {
    for _ in $(seq 100); do
        curl -sf -o /dev/null "$2" && return
        sleep 0.1
    done
    echo "$1 is not up; it said:"
    tail -5 "log/$1.log"
    return 1
}

# The keys: in SoftHSM, behind the daemon.
export SOFTHSM2_CONF=$WORK/softhsm2.conf SIGNERD_SOCKET=$WORK/signerd.sock
pin=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
if [[ ! -e hsm.pin ]]; then
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$WORK/hsm" >softhsm2.conf
    (umask 077 && printf %s "$pin" >hsm.pin)
    softhsm2-util --init-token --free --label logs --pin "$pin" --so-pin "$pin" >/dev/null
fi
cat >signerd.toml <<TOML
socket = "$SIGNERD_SOCKET"
state = "$WORK/signerd"

[[backend]]
name = "hsm"
kind = "pkcs11"
module = "$SOFTHSM_MODULE"
token = "logs"
pin = { file = "$WORK/hsm.pin" }
environment = { SOFTHSM2_CONF = "$SOFTHSM2_CONF" }

[[grant]]
callers = ["uid:$(id -u)"]
keys = ["hsm/*"]
operations = ["*"]
TOML
start signerd "$OURS/signerd" --config "$WORK/signerd.toml"
for _ in $(seq 100); do
    "$OURS/signer" keys list >/dev/null 2>&1 && break
    sleep 0.1
done
for key in "rekor $REKOR_KEY" "ct ecdsa-p256"; do
    read -r name type <<<"$key"
    "$OURS/signer" keys show "hsm/$name" >/dev/null 2>&1 || "$OURS/signer" keys create "hsm/$name" --type "$type" >>log/keys.log 2>&1
done

# The logs.
log() {
    local name=$1 kind=$2
    shift 2
    [[ -e data/$name/checkpoint ]] ||
        "$OURS/signer-log" init --storage "data/$name" --kind "$kind" --origin localhost --key "hsm/$name" >"$P/$name.txt"
    sed -n '/BEGIN PUBLIC KEY/,$p' "$P/$name.txt" >"$P/$name.pub"
    start "$name" "$OURS/signer-log" serve --storage "data/$name" "$@"
}
log rekor signature --listen 127.0.0.1:3003
log ct certificate --listen 127.0.0.1:6962 --roots "$P/froot.pem"

# The programs of others.
printf 'oidc-issuers:\n  http://localhost:18080:\n    issuer-url: http://localhost:18080\n    client-id: sigstore\n    type: email\n' >fulcio.yaml
start oidc node "$TOOLS/oidc.js" 18080
start tsa "$TSA" serve --host=127.0.0.1 --port=3005 --timestamp-signer=file --file-signer-key-path="$P/tleaf.key" \
    --file-signer-passwd=unused --certificate-chain-path="$P/tchain.pem" --disable-ntp-monitoring
start registry "$CRANE" registry serve --address 127.0.0.1:5000
start fulcio "$FULCIO" serve --host=127.0.0.1 --port=5555 --grpc-host=127.0.0.1 --grpc-port=5554 --metrics-port=2113 \
    --config-path=fulcio.yaml --ca=fileca --fileca-cert="$P/fchain.pem" --fileca-key="$P/fint.key" --fileca-key-passwd=fulcio \
    --ct-log-url=http://localhost:6962 --ct-log-public-key-path="$P/ct.pub" --legacy-unix-domain-socket="@fulcio-$$"
up oidc http://localhost:18080/jwks
up ct http://localhost:6962/ct/v1/get-roots
up rekor http://localhost:3003/healthz
up tsa http://localhost:3005/ping
up registry http://localhost:5000/v2/
up fulcio http://localhost:5555/healthz
