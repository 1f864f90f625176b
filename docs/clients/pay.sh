#!/usr/bin/env bash
# One operation, carried out once: pay.sh KEY BODY_JSON [PATH]. Prints the final body.
# API and API_KEY say where and as whom; PATIENCE (60) is how many seconds it may take in all.
# Exits 0 done, 2 declined, 3 refused, 4 unknown: come back later with the same KEY and BODY_JSON.
set -u
key=${1:?KEY} body=${2?BODY_JSON} url=${API%/}${3:-/v1/payments} patience=${PATIENCE:-60} pause=500 doubt=''
authorization="Authorization: Bearer ${API_KEY:?}" # goes through a pipe: all users can see arguments
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
finish() { cat "$dir/body"; echo; exit "$1"; }
refuse() { # an earlier attempt that was not answered may have been carried out all the same
  echo "refused with status $status${doubt:+, but an earlier attempt may have been carried out}" >&2
  finish "${doubt:-3}"
}
SECONDS=0
while left=$((patience - SECONDS)) && [ "$left" -gt 0 ]; do
  : >"$dir/head" && : >"$dir/body" || exit 4
  status=$(curl -qsS -g --max-time $((left < 15 ? left : 15)) -o "$dir/body" -D "$dir/head" -w '%{http_code}' \
    -H @<(echo "$authorization") -H "Idempotency-Key: $key" -H 'Content-Type: application/json' \
    --data-raw "$body" "$url") || status='none'
  case $status in
    200 | 201) finish 0 ;;
    402) finish 2 ;;
    409) grep -q '"code": *"request_in_progress"' "$dir/body" || refuse; doubt=4 ;;
    none | 202 | 5??) doubt=4 ;;
    429) ;; # this attempt began nothing
    *) refuse ;;
  esac
  after=$(grep -io '^retry-after: *[0-9]*' "$dir/head" | grep -o '[0-9]*$')
  wait=$((10#${after:-0} * 1000 + pause / 2 + RANDOM % (pause / 2))) # milliseconds
  [ $((SECONDS * 1000 + wait)) -lt $((patience * 1000)) ] || break
  sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))" && pause=$((pause < 8000 ? pause * 2 : pause))
done
echo "unknown after $SECONDS s (last status: ${status:-none}): it may have been carried out" >&2
exit 4
