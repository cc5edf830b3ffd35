# To be sourced: starts a ring of its own on free ports, until the script ends. Sets url, the address of its
# API, and folder, which is removed at the end and has the token of the API in the file "token". Extra
# settings are arguments, as NAME=VALUE.
corro=$(realpath -m "${CARGO_TARGET_DIR:-target}/release/corro")
if ! [ -x "$corro" ]; then
    echo "There is no $corro: run 'make build' first." >&2
    exit 1
fi
folder=$(mktemp -d)
env -u API_TOKEN -u API_TOKEN_FILE -u API_TOKENS -u API_TOKENS_FILE -u DB_PROCESSES "$@" \
    "$corro" demo --rest-port=0 --socket-port=0 --folder "$folder" >"$folder/out" &
demo=$!
trap 'cd /; kill -INT "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 300); do
    grep -q '^Ctrl-C' "$folder/out" && break
    kill -0 "$demo" 2>/dev/null || { cat "$folder/out"; exit 1; }
    sleep 0.2
done
url=$(sed -n 's|^  API    \(http://localhost:[0-9]*\)/.*|\1|p' "$folder/out")
