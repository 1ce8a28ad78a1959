#!/usr/bin/env bash
# Makes a SoftHSM token with one signing key of each algorithm, and the configuration with which signerd serves it.
# See --help, and README.md for the container made from it.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: softhsm/setup.sh [--dir DIR] [--token LABEL] [--pin-file FILE] [--socket PATH] [--caller CALLER]... [--force]

Makes a software token (SoftHSM) with the keys p256, p384, p521, rsa2048, rsa3072, rsa4096 and ed25519, and a signerd.toml
that serves them as hsm/p256, hsm/p384 and so on. No root needed; everything is in one folder. The keys are files there:
good for trying things out and for tests, no protection for a key that matters.

  --dir DIR         the folder                                                   (default: ./softhsm-demo)
  --token LABEL     label of the token, up to 32 bytes                           (default: signerd)
  --pin-file FILE   take the PIN from FILE, one line of 4 to 255 bytes           (default: a random one)
  --socket PATH     where signerd will listen                                    (default: DIR/signerd.sock)
  --caller CALLER   who may use the keys, as in a [[grant]]; may be repeated     (default: user:YOU)
  --force           delete the token and its keys, and make new ones; signerd's own state stays

It makes:

  DIR/softhsm2.conf   what SOFTHSM2_CONF must name
  DIR/tokens/         the token
  DIR/pin             the PIN, readable by you alone
  DIR/signerd.toml    the daemon's configuration

Without --force nothing that exists is changed: run again, it makes what is missing and says what is there.

Examples:

  softhsm/setup.sh
  softhsm/setup.sh --dir ~/hsm --token release --pin-file ~/hsm.pin
  softhsm/setup.sh --dir /srv/hsm --socket /run/signerd/signerd.sock --caller user:ci --caller group:release
USAGE
}

# Label, id, and what pkcs11-tool calls the type.
readonly keys='p256     01  EC:prime256v1
               p384     02  EC:secp384r1
               p521     03  EC:secp521r1
               rsa2048  04  rsa:2048
               rsa3072  05  rsa:3072
               rsa4096  06  rsa:4096
               ed25519  07  EC:edwards25519'
# The first line of each configuration file, by which a later run knows them.
readonly mark='# Made by softhsm/setup.sh.'

# What the command line says; find_tools adds module, read_pin_file given_pin, make_pin pin.
dir=softhsm-demo token='' pin_file='' socket='' force='' callers=()

main() {
    read_arguments "$@"
    umask 077
    find_tools

    dir=$(realpath -m -- "$dir")
    socket=$(realpath -m -- "${socket:-$dir/signerd.sock}")
    ((${#callers[@]})) || callers=("user:$(id -un 2>/dev/null || id -u)")
    check_names
    read_pin_file

    mkdir -p -- "$dir"
    # One at a time: a second run in the same folder waits, and finds everything there.
    exec 9<"$dir"
    flock 9
    refuse_foreign_files
    [[ -z $force ]] || rm -rf -- "$dir"/{signerd.toml,tokens,softhsm2.conf,pin}

    # Each step makes one thing, which appears by a rename: an interrupted run is completed by the next one.
    make_pin
    make_softhsm2_conf
    make_token
    make_signerd_toml
    report
}

read_arguments() {
    while (($#)); do
        case $1 in
        -h | --help)
            usage
            exit
            ;;
        --force) force=yes ;;
        --dir | --token | --pin-file | --socket | --caller)
            [[ -n ${2:-} ]] || wrong_usage "$1 wants a value"
            case $1 in
            --dir) dir=$2 ;;
            --token) token=$2 ;;
            --pin-file) pin_file=$2 ;;
            --socket) socket=$2 ;;
            --caller) callers+=("$2") ;;
            esac
            shift
            ;;
        *) wrong_usage "unknown argument '$1'" ;;
        esac
        shift
    done
}

find_tools() {
    local folder
    for folder in /usr/lib/softhsm /usr/lib64/softhsm /usr/lib64/pkcs11 /usr/lib/pkcs11 /usr/local/lib/softhsm; do
        module=$folder/libsofthsm2.so
        [[ ! -e $module ]] || break
    done
    if [[ ! -e $module ]] || ! command -v pkcs11-tool >/dev/null; then
        fail 'SoftHSM 2 and OpenSC are needed; on Debian and Ubuntu: apt-get install softhsm2 opensc'
    fi
}

check_names() {
    local name
    for name in "$dir" "$token" "$socket" "${callers[@]}"; do
        [[ $name != *[\"\\[:cntrl:]]* ]] || wrong_usage "no quotes, backslashes or control characters, please: $name"
    done
    (($(bytes "$token") <= 32)) || wrong_usage "a token's label has at most 32 bytes: $token"
    (($(bytes "$socket") <= 107)) ||
        wrong_usage "a socket's path has at most 107 bytes; take a shorter --dir, or --socket: $socket"
}

read_pin_file() {
    given_pin=''
    [[ -n $pin_file ]] || return 0
    [[ -f $pin_file && -r $pin_file ]] || fail "there is no readable file $pin_file"
    given_pin=$(<"$pin_file")
    if [[ $given_pin == *[[:cntrl:]]* ]] || (($(bytes "$given_pin") < 4 || $(bytes "$given_pin") > 255)); then
        fail "a PIN is one line of 4 to 255 bytes: $pin_file"
    fi
}

refuse_foreign_files() {
    local file
    for file in softhsm2.conf signerd.toml; do
        [[ ! -e $dir/$file || $(head -n 1 -- "$dir/$file") == "$mark" ]] ||
            fail "$dir/$file was not made by this script; take another --dir"
    done
    # Without --force a folder of tokens is only read.
    [[ -z $force || ! -e $dir/tokens || -e $dir/softhsm2.conf ]] ||
        fail "$dir/tokens may not have been made by this script, and is not deleted; take another --dir"
}

make_pin() {
    if kept "$dir/pin"; then
        pin=$(<"$dir/pin")
        [[ -z $given_pin || $given_pin == "$pin" ]] ||
            fail "$dir/pin is not the PIN in $pin_file; leave out --pin-file, or start over with --force"
        return
    fi
    [[ ! -e $dir/tokens || -n $given_pin ]] ||
        fail "$dir has a token, but its PIN is not in $dir/pin; give it with --pin-file, or start over with --force"
    pin=${given_pin:-$(random_pin)}
    # Without a line end: some readers of PIN files take every byte.
    printf %s "$pin" | made "$dir/pin"
}

make_softhsm2_conf() {
    kept "$dir/softhsm2.conf" || softhsm2_conf "$dir/tokens" | made "$dir/softhsm2.conf"
}

make_token() {
    local unfinished=$dir/.unfinished so_pin label id type
    if kept "$dir/tokens"; then
        check_token
        return
    fi
    token=${token:-signerd}
    rm -rf -- "$unfinished"
    mkdir -p -- "$unfinished/tokens"
    softhsm2_conf "$unfinished/tokens" >"$unfinished/softhsm2.conf"

    # The security officer could set a new user PIN, or erase the token. Nobody keeps this PIN: --force does as much.
    so_pin=$(random_pin)
    export SOFTHSM2_CONF=$unfinished/softhsm2.conf
    SO_PIN=$so_pin tool --init-token --label "$token" --so-pin env:SO_PIN
    SO_PIN=$so_pin PIN=$pin tool --init-pin --login --login-type so --so-pin env:SO_PIN --new-pin env:PIN \
        --token-label "$token"
    while read -r label id type; do
        say "making the key $label"
        PIN=$pin tool --keypairgen --key-type "$type" --label "$label" --id "$id" --usage-sign \
            --login --pin env:PIN --token-label "$token"
    done <<<"$keys"

    mv -T -- "$unfinished/tokens" "$dir/tokens"
    rm -rf -- "$unfinished"
    say "made $dir/tokens"
}

# Sets token to the label of the token that is there.
check_token() {
    local asked=$token
    # The first slot is the token's, the last one is SoftHSM's empty slot.
    token=$(list --list-token-slots | sed -n 's/^ *token label *: *//p' | head -n 1) || true
    [[ -n $token ]] || fail "SoftHSM finds no token with $dir/softhsm2.conf; if the folder has moved, delete this file and" \
        "$dir/signerd.toml and run this again; otherwise start over with --force"
    [[ -z $asked || $asked == "$token" ]] ||
        fail "the token in $dir is labelled '$token', not '$asked'; take another --dir, or start over with --force"
}

make_signerd_toml() {
    local quoted_callers
    quoted_callers=$(printf ', "%s"' "${callers[@]}")
    kept "$dir/signerd.toml" || made "$dir/signerd.toml" <<TOML
$mark
socket = "$socket"
state = "$dir/state"

[[backend]]
name = "hsm"
kind = "pkcs11"
module = "$module"
token = "$token"
pin = { file = "$dir/pin" }
# Given to the driver process, which is where SoftHSM is loaded.
environment = { SOFTHSM2_CONF = "$dir/softhsm2.conf" }

[[grant]]
callers = [${quoted_callers#, }]
keys = ["hsm/*"]
operations = ["*"]
TOML
}

report() {
    local names listening
    names=$(list --list-objects --type pubkey --token-label "$token" | sed -n 's|^  label: *|  hsm/|p' | sort) ||
        fail "SoftHSM can't list the keys in $dir/tokens"
    # From the file: it may be an older one, with another --socket.
    listening=$(sed -n 's/^socket = "\(.*\)"$/\1/p' "$dir/signerd.toml")
    cat <<NEXT
The token '$token' in $dir has the keys:

$names

Next:

  signerd --config $(printf %q "$dir/signerd.toml") &
  export SIGNERD_SOCKET=$(printf %q "$listening")
  signer keys list
  signer sign FILE --key hsm/p256
  signer verify FILE --key hsm/p256
NEXT
}

softhsm2_conf() {
    cat <<CONF
$mark
directories.tokendir = $1
objectstore.backend = file
log.level = ERROR
CONF
}

# pkcs11-tool is told in which variable of its environment a PIN is: an argument can be read by every user of the machine,
# the environment by the same user alone. (softhsm2-util knows only arguments and the terminal.)
tool() {
    local output
    output=$(pkcs11-tool --module "$module" "$@" 2>&1 </dev/null) || fail "pkcs11-tool $*: $output"
}

# What the finished token shows without a PIN.
list() {
    SOFTHSM2_CONF=$dir/softhsm2.conf pkcs11-tool --module "$module" "$@" 2>/dev/null </dev/null
}

random_pin() {
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

bytes() {
    printf %s "$1" | wc -c
}

kept() {
    [[ -e $1 ]] && say "kept $1"
}

# Stdin becomes the file, at once.
made() {
    cat >"$1.unfinished"
    mv -T -- "$1.unfinished" "$1"
    say "made $1"
}

say() {
    printf 'setup.sh: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

wrong_usage() {
    say "$* (see --help)"
    exit 2
}

main "$@"
