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

venv="${SCHEMATHESIS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/corro-schemathesis}"
version=4.32.5

if ! "$venv/bin/schemathesis" --version 2>/dev/null | grep -q "$version"; then
    if ! { python3 -m venv "$venv" &&
        timeout 300 "$venv/bin/pip" install --quiet "schemathesis==$version"; } then
        echo 'Left out: Schemathesis cannot be installed (python3-venv or PyPI is missing).'
        exit 77
    fi
fi

options=("$@")
set --
. "$here/demo.sh"

cd "$folder" # it keeps what it finds where it runs
TOKEN=$(cat token)
export TOKEN SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1
"$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" \
    run "$url/openapi.json" --no-color --checks all "${options[@]}"
