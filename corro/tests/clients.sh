#!/usr/bin/env bash
# Starts a ring of its own on free ports, and lets programs of others use its API: a client that
# openapi-python-client generates from the OpenAPI document performs every call, values are compared with the
# document in both directions, and Python's http.client, node and python-socketio have to hear every refusal.
#
# The programs come from PyPI into a folder that is kept (CLIENTS_VENV). Exit code 77: they cannot be had
# here. Without node, that part is skipped.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
cd "$here/../.."

venv="${CLIENTS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/corro-clients}"
packages=(openapi-python-client==0.29.1 jsonschema_rs==0.61.2 hypothesis==6.170.17
    python-socketio==5.18.1 aiohttp)
if ! [ "$(cat "$venv/packages" 2>/dev/null)" = "${packages[*]}" ]; then
    if ! { python3 -m venv "$venv" &&
        timeout 300 "$venv/bin/pip" install --quiet "${packages[@]}"; } then
        echo 'Left out: the clients cannot be installed (python3-venv or PyPI is missing).'
        exit 77
    fi
    echo "${packages[*]}" >"$venv/packages"
fi

# Programs that send no token are tested as well; the generated one sends its own.
set -- ALLOW_ANONYMOUS=true
. "$here/demo.sh"
export CORRO_TOKEN
CORRO_TOKEN=$(cat "$folder/token")
# NDJSON is bytes to it, which it passes on as they are.
echo '{"content_type_overrides": {"application/x-ndjson": "application/octet-stream"}}' \
    >"$folder/generate.json"
PATH="$venv/bin:$PATH" "$venv/bin/openapi-python-client" generate --url "$url/openapi.json" \
    --config "$folder/generate.json" --meta none --output-path "$folder/corro_client" --fail-on-warning
export PYTHONPATH="$folder" PYTHONDONTWRITEBYTECODE=1
for part in generated document refusals; do
    "$venv/bin/python" "$here/clients/$part.py" "$url"
done
if command -v node >/dev/null; then
    node "$here/clients/refusals.mjs" "$url"
else
    echo 'skipped: there is no node on this machine'
fi
