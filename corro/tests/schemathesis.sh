#!/usr/bin/env bash
# Starts a ring of its own on free ports, and lets Schemathesis try to find an answer that its OpenAPI
# document does not allow: well-formed and malformed requests for every call, every boundary of every field,
# and chains of calls along the links of the document. Options are handed on, such as --max-examples=50 or
# --seed=7.
#
# Schemathesis comes from PyPI into a folder that is kept (SCHEMATHESIS_VENV). Exit code 77: it cannot be had
# here.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
cd "$here/../.."

corro=$(realpath -m "${CARGO_TARGET_DIR:-target}/release/corro")
venv="${SCHEMATHESIS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/corro-schemathesis}"
version=4.32.5

if ! [ -x "$corro" ]; then
    echo "There is no $corro: run 'make build' first." >&2
    exit 1
fi
if ! "$venv/bin/schemathesis" --version 2>/dev/null | grep -q "$version"; then
    if ! { python3 -m venv "$venv" &&
        timeout 300 "$venv/bin/pip" install --quiet "schemathesis==$version"; } then
        echo 'Left out: Schemathesis cannot be installed (python3-venv or PyPI is missing).'
        exit 77
    fi
fi

folder=$(mktemp -d)
env -u API_TOKEN -u DB_PROCESSES "$corro" demo --rest-port=0 --socket-port=0 --folder "$folder" \
    >"$folder/out" &
demo=$!
trap 'cd /; kill -INT "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 300); do
    grep -q '^Ctrl-C' "$folder/out" && break
    kill -0 "$demo" 2>/dev/null || { cat "$folder/out"; exit 1; }
    sleep 0.2
done
url=$(sed -n 's|^  API    \(http://localhost:[0-9]*\)/.*|\1|p' "$folder/out")

cd "$folder" # it keeps what it finds where it runs
export SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1
"$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" \
    run "$url/openapi.json" --no-color --checks all "$@"
