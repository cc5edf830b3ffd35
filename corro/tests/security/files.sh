#!/usr/bin/env bash
# Whatever mask the processes are started with, none of the files that they write can be read by other users
# of the machine: data, logs, what the demo writes, exports and the reports of an import.
set -euo pipefail
umask 0
. "$(realpath "$(dirname "$0")")/../demo.sh"

# What the shell has made itself does not count.
chmod 600 "$folder/out"
install -m 600 /dev/null "$folder/users.ndjson"
printf '{"name":"Ada","email":"ada@example.com"}\n{"name":"","email":"ada"}\n' >"$folder/users.ndjson"
export API_TOKEN_FILE=$folder/token
"$corro" import --url "$url" --errors "$folder/errors" --rejected "$folder/rejected" "$folder/users.ndjson" &&
    { echo 'an invalid row was imported'; exit 1; }
"$corro" export --url "$url" --output "$folder/users.csv"
for file in errors rejected users.csv; do
    [ -s "$folder/$file" ] || { echo "$file was not written"; exit 1; }
done
[ "$(find "$folder" -name '*.log' | wc -l)" -ge 8 ] || { echo 'logs are missing'; exit 1; }
open=$(find "$folder" ! -type l -perm /077)
[ -z "$open" ] || { echo 'others can use:'; echo "$open"; exit 1; }
echo "files: none of $(find "$folder" | wc -l) files and folders can be used by others"
