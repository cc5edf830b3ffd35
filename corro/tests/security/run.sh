#!/usr/bin/env bash
# Attacks on a ring, each of which has to fail: every script beside this one, or those that are named. Each
# starts a ring of its own, says what it tried, and exits with 0 where nothing was achieved, with 77 where
# this machine lacks what it needs.
#
#     corro/tests/security/run.sh [NAME...]
#
# Needs python3, and a built `corro`.
set -uo pipefail
cd "$(dirname "$0")"

names=("$@")
[ "${#names[@]}" -gt 0 ] || names=(*.py *.sh)
failed=()
for name in "${names[@]}"; do
    [ "$name" != run.sh ] || continue
    printf '== %s\n' "$name"
    outcome=0
    timeout 600 "./$name" || outcome=$?
    case $outcome in
    0) ;;
    77) printf 'skipped %s: this machine lacks what it needs\n' "$name" ;;
    *) failed+=("$name") ;;
    esac
done
[ "${#failed[@]}" -eq 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
