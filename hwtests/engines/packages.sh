# shellcheck shell=bash
# What the scripts of this folder share: Debian packages and the cache of built engines. Sourced, never run, by scripts that
# have 'set -euo pipefail'.
#
# The cache is one folder per engine and version, under
#
#   ${SIGNERD_ENGINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/signerd-engines}
#
# Delete an engine's folder to have it built again. Only an engine's path goes to stdout; everything else goes to stderr.

engine_cache=${SIGNERD_ENGINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/signerd-engines}
[[ $engine_cache == /* ]] || engine_cache=$PWD/$engine_cache

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# need_packages PACKAGE...: Debian packages are installed when this returns 0.
# Missing ones are installed as root; otherwise one sentence names them and the return is 1.
# On a system without dpkg, SIGNERD_ENGINE_PACKAGES=present says that their contents are there by other means.
need_packages() {
    [[ ${SIGNERD_ENGINE_PACKAGES:-} != present ]] || return 0
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0

    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        say "these Debian packages are missing; install them as root, with 'apt-get install ${missing[*]}'" \
            "(or, on another system, their equivalents, and set SIGNERD_ENGINE_PACKAGES=present)"
        return 1
    fi
    say "installing ${missing[*]}"
    mkdir -p "$engine_cache"
    (
        # Two engines may ask at once, and 'apt-get update' fails when another one has the lists locked.
        flock 9 &&
            apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
                -o DPkg::Lock::Timeout=600 "${missing[@]}"
    ) 9>"$engine_cache/.apt-get.lock" >&2 </dev/null || {
        say "apt-get could not install ${missing[*]}"
        return 1
    }
}

# Those of the packages named that are not fully installed, a line each.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# need_program NAME WHERE-FROM: for what Debian 12 has not, or not new enough (Rust, Go).
need_program() {
    command -v "$1" >/dev/null || {
        say "the program '$1' is missing; $2"
        return 1
    }
}

# cached_engine NAME FILE BUILD: prints the path of FILE in the cache folder of NAME, which the function BUILD fills when
# it is not there. BUILD is called with the folder to fill, in an empty scratch folder that is deleted afterwards.
#
# The folder appears by a rename, so it is complete whenever it exists, and everyone else waits for the one that builds.
cached_engine() {
    local name=$1 file=$2 build=$3
    if [[ ! -e $engine_cache/$name/$file ]]; then
        mkdir -p "$engine_cache"
        # What BUILD starts inherits the lock: when this script is killed, the next one waits for the orphans instead of
        # deleting the folder under them.
        (
            flock --nonblock 9 || {
                say "another process is building $name; waiting for it"
                flock 9
            }
            [[ -e $engine_cache/$name/$file ]] || build_engine "$name" "$file" "$build"
        ) 9>"$engine_cache/.$name.lock" >&2 </dev/null
    fi
    printf '%s\n' "$engine_cache/$name/$file"
}

# In a subshell, under the lock of NAME.
build_engine() {
    local name=$1 file=$2 build=$3
    local unfinished=$engine_cache/.$name.unfinished started=$SECONDS
    # What a killed build has left.
    rm -rf "$unfinished"
    # shellcheck disable=SC2064 # the name of now
    trap "rm -rf ${unfinished@Q}" EXIT
    mkdir -p "$unfinished/result" "$unfinished/scratch"
    say "building $name, once, in $engine_cache"
    (
        cd "$unfinished/scratch" || exit
        "$build" "$unfinished/result"
    )
    [[ -e $unfinished/result/$file ]] || {
        say "$name was built, but $file is not in it"
        return 1
    }
    rm -rf "${engine_cache:?}/$name"
    mv -T "$unfinished/result" "$engine_cache/$name"
    say "built $name in $((SECONDS - started)) s"
}

# cargo, without the flags and targets that a caller such as 'cargo test' or a coverage run leaves in the environment.
engine_cargo() {
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS -u CARGO_BUILD_TARGET \
        CARGO_TARGET_DIR="$PWD/target" cargo "$@"
}
