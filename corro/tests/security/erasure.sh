#!/usr/bin/env bash
# Looks for users that were erased, or deleted long enough ago, where a thief of disks or a client of the feed
# would: in every file of a ring of its own, and in the changes from the beginning. Neither is found.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/../demo.sh" PURGE_AFTER=2

new() { head -c 15 /dev/urandom | base64 | tr '+/' 'xy'; }
fail() { echo "FAILED: $*"; exit 1; }
token="authorization: Bearer $(cat "$folder/token")"
call() {
    curl --silent --show-error --fail --max-time 120 -H 'content-type: application/json' -H "$token" "$@"
}
id_of() { sed -n 's/.*"id":"\([0-9a-f-]*\)".*/\1/p'; }
# The files that have any of the texts. What is compressed shows only texts that do not compress.
files() { grep -rlF "${@/#/-e}" "$folder" || true; }
# Everything that the feed says from the beginning.
changes() { curl --silent --max-time 3 -H "$token" "$url/api/user/changes?after=0000000000000000" || true; }

old=$(new) name=$(new) mail=$(new) kept=$(new)
id=$(call "$url/api/user" -d "{\"name\":\"$old\",\"email\":\"$mail@example.org\"}" | id_of)
call -X PATCH "$url/api/user/$id" -d "{\"name\":\"$name\"}" >"$folder/answer"
call "$url/api/user" -d "{\"name\":\"$kept\",\"email\":\"kept@example.org\"}" >"$folder/answer"
rm "$folder/answer"
[ -n "$(files "$old" "$name" "$mail")" ] || fail 'what is there is not found, so nothing is shown'

"$corro" erase --url "$url" --token-file "$folder/token" "$id"
left=$(files "$old" "$name" "$mail")
[ -z "$left" ] || fail "an erased user is in $left"
echo 'erased at once: in no file'

old=$(new) name=$(new) mail=$(new)
id=$(call "$url/api/user" -d "{\"name\":\"$old\",\"email\":\"$mail@example.org\"}" | id_of)
call -X PATCH "$url/api/user/$id" -d "{\"name\":\"$name\"}" >/dev/null
call -X DELETE "$url/api/user/$id"
for _ in $(seq 120); do
    left=$(files "$old" "$name" "$mail")
    [ -n "$left" ] || break
    sleep 0.5
done
[ -z "$left" ] || fail "a user that was deleted a minute ago is in $left"
echo 'deleted: after a while in no file'

said=$(changes)
for text in "$old" "$name" "$mail"; do
    case $said in *"$text"*) fail 'the feed has a user that is gone' ;; esac
done
case $said in *"$kept"*) ;; *) fail "the feed lacks a user that is there: $said" ;; esac
[ -n "$(files "$kept")" ] || fail 'a user that is there is in no file'
echo 'the feed from the beginning: not in it'
