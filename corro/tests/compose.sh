#!/usr/bin/env bash
# The ring in real containers, as docker-compose.yaml starts it: db-1 is stopped for ten seconds and started
# again while users are read and written, and no read may fail or be older than what was acknowledged. Then
# `corro drill` stops, kills and pauses containers in turn, and the gateway's as well, and has to come to the
# same verdict as with a ring of processes.
#
# Needs docker, docker-compose (1.29 or v2), python3 and cargo. Where the base images of the Dockerfiles are
# neither here nor to be pulled, it makes them from Debian packages and this machine's Rust, which takes root.
# It leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds_down=${SECONDS_DOWN:-10}
export REST_PORT=${REST_PORT:-13001} SOCKET_PORT=${SOCKET_PORT:-13002}
cycles=${DRILL_CYCLES:-8}
export COMPOSE_PROJECT_NAME=corro-test # for the drill as well
here=$PWD
work=$(mktemp -d)
made=()  # images that were made here
dangling=$(docker images -qf dangling=true | sort)
load=    # the process that reads and writes

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
die() { say "FAILED: $*"; exit 1; }

if docker-compose version >/dev/null 2>&1; then
    compose() { docker-compose "$@"; }
else
    compose() { docker compose "$@"; }
fi

for name in gateway db-0 db-1 db-2; do
    if docker inspect "$name" >/dev/null 2>&1; then
        die "there is a container $name already; remove it first (docker-compose down)"
    fi
done

clean_up() {
    local outcome=$?
    trap - EXIT
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    if [ "$outcome" -ne 0 ]; then
        compose ps || true
        compose logs --tail 40 --no-color || true
    fi
    compose down -v --rmi local --remove-orphans >/dev/null 2>&1 || true
    # Layers on images that were pulled are kept, as docker keeps them: the next build is quick with them.
    for image in "${made[@]}"; do
        docker ps -aq --filter "ancestor=$image" | xargs -r docker rm -f >/dev/null 2>&1 || true
        docker rmi -f "$image" >/dev/null 2>&1 || true
    done
    if [ "${#made[@]}" -gt 0 ]; then
        local left # what is built on another image has to go before it
        for _ in 1 2 3 4 5; do
            left=$(comm -13 <(echo "$dangling") <(docker images -qf dangling=true | sort))
            [ -n "$left" ] || break
            echo "$left" | xargs docker rmi -f >/dev/null 2>&1 || true
        done
    fi
    rm -rf "$work"
    exit "$outcome"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- base images ------------------------------------------------------------------------------------------

present() { docker image inspect "$1" >/dev/null 2>&1 || timeout 120 docker pull -q "$1" >/dev/null 2>&1; }

make_debian() {
    say "$1 cannot be pulled: making it with debootstrap"
    command -v debootstrap >/dev/null ||
        { apt-get update -q && apt-get install -q -y debootstrap; } >"$work/log" 2>&1 ||
        { cat "$work/log"; die 'debootstrap is missing'; }
    debootstrap --variant=minbase bookworm "$work/debian" >"$work/log" 2>&1 ||
        { tail "$work/log"; die 'debootstrap failed'; }
    # What this machine trusts: it may reach the world through a proxy with a certificate of its own.
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/ca-certificates.crt"
    tar -C "$work/debian" --exclude='./var/cache/apt/archives/*.deb' -c . | docker import - "$1" >/dev/null
    rm -rf "$work/debian"
    made+=("$1")
}

# As the image of that name is: Rust beside the usual tools of C. And what this machine has compiled of
# RocksDB before.
make_rust() {
    say "$1 cannot be pulled: making it from Debian packages and this machine's Rust"
    local context=$work/rust cache
    mkdir -p "$context/ccache"
    cp -r "$(rustc --print sysroot)" "$context/toolchain"
    rm -rf "$context"/toolchain/share
    cache=${CCACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ccache}
    [ ! -d "$cache" ] || cp -r "$cache/." "$context/ccache/"
    cp /etc/ssl/certs/ca-certificates.crt "$context/"
    # The language is a part of what ccache finds a result by.
    local language=
    [ -z "${LANG+set}" ] || language="LANG=$LANG"
    [ -z "${LC_CTYPE+set}" ] || language="$language LC_CTYPE=$LC_CTYPE"
    cat >"$context/Dockerfile" <<DOCKERFILE
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends \
    build-essential ca-certificates ccache libclang-dev libssl-dev pkg-config && update-ccache-symlinks
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY toolchain /usr/local/rust
COPY ccache /root/.cache/ccache
ENV PATH=/usr/lib/ccache:/usr/local/rust/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin $language
DOCKERFILE
    docker build -q -t "$1" "$context" >"$work/log" 2>&1 || { cat "$work/log"; die 'it could not be made'; }
    rm -rf "$context"
    made+=("$1")
}

debian=$(sed -n 's/^FROM \(debian:[^ ]*\)$/\1/p' db-process/Dockerfile)
rust=$(sed -n 's/^FROM \(rust:[^ ]*\) .*/\1/p' db-process/Dockerfile)
present "$debian" || make_debian "$debian"
present "$rust" || make_rust "$rust"

# --- the ring ---------------------------------------------------------------------------------------------

builder() { sed -n '/^FROM .* AS builder/,/^FROM debian/p' "$1"; }
cmp <(builder gateway/Dockerfile) <(builder db-process/Dockerfile) ||
    die 'the builders of the two images differ: everything would be compiled twice'
say 'building the images'
# What is tested here is how the containers work together; whole-program optimisation would take minutes more.
compose build --build-arg LTO=false --build-arg CODEGEN_UNITS=16 >"$work/build" 2>&1 ||
    { tail -n 60 "$work/build"; die 'the images could not be built'; }

begun=$SECONDS
compose up -d >"$work/log" 2>&1 || { cat "$work/log"; die 'up failed'; }
api=http://127.0.0.1:$REST_PORT
ready() { # within so many seconds
    python3 - "$api/health/ready" "$1" <<'PYTHON'
import sys, time, urllib.request
url, deadline = sys.argv[1], time.monotonic() + float(sys.argv[2])
while True:
    try:
        urllib.request.urlopen(url, timeout=2).close()
        sys.exit(0)
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"not ready: {error}")
    time.sleep(0.05)
PYTHON
}
ready 60 || die 'the ring did not become ready within 60 s'
say "the ring is ready $((SECONDS - begun)) s after up"
API_TOKEN=$(docker exec gateway cat /secret/token) # of load.py, and of the drill
export API_TOKEN

python3 "$here/corro/tests/load.py" "$api" >"$work/load" 2>&1 &
load=$!
ready_to_stop() { grep -q '^running' "$work/load"; }
for _ in $(seq 600); do ready_to_stop && break; sleep 0.1; done
ready_to_stop || { cat "$work/load"; die 'the load did not start'; }

say 'stopping db-1'
compose stop db-1 >/dev/null 2>&1
sleep "$seconds_down"
[ "$(docker inspect -f '{{.State.Running}}' db-1)" = false ] ||
    die 'db-1 runs: the restart policy undid the stop'
say "starting db-1, which was away for $seconds_down s"
compose start db-1 >/dev/null 2>&1
ready 30 || die 'the ring was not ready again within 30 s'
say 'ready again'
sleep 2 # under load with all three
kill -INT "$load"
outcome=0
wait "$load" || outcome=$?
load=
cat "$work/load"
[ "$outcome" -eq 0 ] || die 'reads failed'

say "a drill of $cycles cycles by corro"
(cd "$here" && cargo build --release --workspace) >"$work/build" 2>&1 ||
    { tail -n 60 "$work/build"; die 'corro could not be built'; }
"${CARGO_TARGET_DIR:-$here/target}/release/corro" drill --driver compose --url "$api" --cycles "$cycles" \
    --target random --faults stop,kill,hang,gateway --seed 7 || die 'the drill failed'

for name in gateway db-0 db-1 db-2; do
    docker exec "$name" corro --version >/dev/null || die "corro does not run in $name"
    user=$(docker exec "$name" id -u)
    [ "$user" != 0 ] || die "$name runs as root"
    ! docker exec -u root "$name" touch /x 2>/dev/null || die "the root of $name can be written"
    folders=/logs
    [ "$name" = gateway ] || folders='/logs /data'
    # shellcheck disable=SC2086
    open=$(docker exec "$name" find $folders ! -type l -perm /077)
    [ -z "$open" ] || die "others can use files of $name: $open"
    grep -qx 'CapBnd:\s*0*' <(docker exec "$name" cat /proc/1/status) || die "$name has capabilities"
    limits=$(docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$name")
    [[ "$limits" =~ ^[1-9][0-9]*\ [1-9][0-9]*$ ]] || die "$name has no limits: $limits"
    health=$(docker inspect -f '{{.State.Health.Status}}' "$name")
    [ "$health" = healthy ] || [ "$health" = starting ] || die "$name is $health"
done

begun=$SECONDS
compose down -v >/dev/null 2>&1
[ $((SECONDS - begun)) -lt 15 ] || die "down took $((SECONDS - begun)) s: a process waits for SIGKILL"
say 'no read failed: the ring in containers is well'
