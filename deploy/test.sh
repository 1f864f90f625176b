#!/usr/bin/env bash
# Builds the images and shows, in containers, that they are what deploy/README.md says. Prints every figure with its bound
# and fails when one is missed. It removes what it started; the images stay, so that the next run takes a minute.
#
# BUILDER_IMAGE, RUNTIME_IMAGE and POSTGRES_IMAGE name other images than the usual ones, and SERVICE_IMAGE together with
# SIMULATOR_IMAGE images that are built already. Where the usual ones cannot be pulled, tests/images/build makes stand-ins.
set -euo pipefail
cd "$(dirname "$0")/.."

megabytes_bound=60
healthy_bound_ms=60000
stop_bound_ms=12500 # PAYWRIGHT_SHUTDOWN_GRACE and PAYWRIGHT_SHUTDOWN_TIMEOUT in compose.yaml, and 0.5 s to close

project=deploy-test-$$
extra=$project-alone
missed=0
directory=$(mktemp -d)
export SECRETS_DIR=$directory/secrets PUBLIC_PORT=0 OPERATIONS_PORT=0

if docker compose version >/dev/null 2>&1; then
  compose() { docker compose --project-name "$project" --file deploy/compose.yaml "$@"; }
else
  compose() { docker-compose --project-name "$project" --file deploy/compose.yaml "$@"; }
fi

say() { printf '\n== %s\n' "$*"; }
now() { echo $((${EPOCHREALTIME/./} / 1000)); }

clean_up() {
  local status=$?
  set +e
  if [ "$status" -ne 0 ]; then
    say "what the containers said last"
    docker logs --tail 20 "$extra" 2>&1
    compose logs --no-color --tail 20 2>&1
  fi
  docker rm --force --volumes "$extra" >/dev/null 2>&1
  compose down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1
  rm -rf "$directory"
}

# at_most WHAT FIGURE UNIT BOUND
at_most() {
  local verdict=ok
  if [ "$2" -gt "$4" ]; then verdict=MISSED missed=$((missed + 1)); fi
  printf '%-58s %8s %-3s at most %s: %s\n' "$1" "$2" "$3" "$4" "$verdict"
}

# is WHAT FIGURE EXPECTED
is() {
  local verdict=ok
  if [ "$2" != "$3" ]; then verdict=MISSED missed=$((missed + 1)); fi
  printf '%-58s %s, expected %s: %s\n' "$1" "${2:-nothing}" "${3:-nothing}" "$verdict"
}

# image NAME STAND_IN TAG: the usual image where there is one, else the stand-in
image() {
  if docker image inspect "$1" >/dev/null 2>&1 || timeout 600 docker pull --quiet "$1" >/dev/null 2>&1; then
    echo "$1"
  else
    tests/images/build "$2" >&2
    echo "$3"
  fi
}

usual() { sed -n "s/^ARG $1=//p" deploy/Dockerfile; }

build() {
  local target=$1 tag=$2
  docker build ${BUILD_NETWORK:+--network "$BUILD_NETWORK"} --file deploy/Dockerfile --target "$target" --tag "$tag" \
    --build-arg "BUILDER_IMAGE=$BUILDER_IMAGE" --build-arg "RUNTIME_IMAGE=$RUNTIME_IMAGE" \
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" . >"$directory/build.log" 2>&1 ||
    { tail -n 40 "$directory/build.log"; exit 1; }
}

# healthy CONTAINER: how many milliseconds until its HEALTHCHECK says so, or the bound and one more
healthy() {
  local since
  since=$(now)
  while [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" != healthy ]; do
    if [ $(($(now) - since)) -gt "$healthy_bound_ms" ]; then break; fi
    sleep 0.2
  done
  echo $(($(now) - since))
}

# container SERVICE: its id, running or not
container() { compose ps --quiet "$1" | head -n 1; }

# stop CONTAINER: how many milliseconds it took to end after SIGTERM
stop() {
  local since
  since=$(now)
  docker stop --time 20 "$1" >/dev/null
  echo $(($(now) - since))
}

exit_code() { docker inspect --format '{{.State.ExitCode}}' "$1"; }

trap clean_up EXIT

say "images"
POSTGRES_IMAGE=${POSTGRES_IMAGE:-$(image postgres:18 postgres:18 paywright-test/postgres:18)}
if [ -z "${SERVICE_IMAGE:-}" ]; then
  BUILDER_IMAGE=${BUILDER_IMAGE:-$(image "$(usual BUILDER_IMAGE)" builder paywright-test/rust:1)}
  RUNTIME_IMAGE=${RUNTIME_IMAGE:-$(image "$(usual RUNTIME_IMAGE)" runtime paywright-test/cc:nonroot)}
  SERVICE_IMAGE=paywright:test SIMULATOR_IMAGE=provider-simulator:test
  echo "built with $BUILDER_IMAGE, based on $RUNTIME_IMAGE"
  since=$(now)
  build paywright "$SERVICE_IMAGE"
  build provider-simulator "$SIMULATOR_IMAGE"
  echo "building took $((($(now) - since) / 1000)) s"
fi
export POSTGRES_IMAGE SERVICE_IMAGE SIMULATOR_IMAGE
at_most "size of $SERVICE_IMAGE" $(($(docker image inspect --format '{{.Size}}' "$SERVICE_IMAGE") / 1000000)) MB \
  "$megabytes_bound"
is "its user" "$(docker image inspect --format '{{.Config.User}}' "$SERVICE_IMAGE")" 65532:65532
docker create --name "$extra" "$SERVICE_IMAGE" >/dev/null
docker export "$extra" | tar -tv >"$directory/files"
echo "its programs: $(grep -oE '[^ ]*bin/[^ ]*[^/ ]$' "$directory/files" | paste -sd ' ')"
# by name, because a base may bring a harmless program of its C library
is "shells, interpreters and package managers in it" \
  "$(grep -cE '/(ba|da|z|k)?sh$|/(busybox|perl|python[0-9.]*|apt|apt-get|dpkg|curl|wget)$' "$directory/files" || true)" 0
is "files that give their owner's rights to whoever runs them" \
  "$(grep -cE '^-..(s|...s)' "$directory/files" || true)" 0
docker rm "$extra" >/dev/null
for shell in /bin/sh /bin/bash /busybox/sh; do
  status=0
  docker run --rm --entrypoint "$shell" "$SERVICE_IMAGE" -c true >/dev/null 2>&1 || status=$?
  is "exit status of $shell in it (127: there is none)" "$status" 127
done
status=0
docker run --rm "$SERVICE_IMAGE" serve >"$directory/unset" 2>&1 || status=$?
is "exit status of serve without settings" "$status" 2
cat "$directory/unset"

say "Compose"
deploy/compose/secrets "$SECRETS_DIR"
since=$(now)
compose up --detach >"$directory/up.log" 2>&1 || { cat "$directory/up.log"; exit 1; }
for service in serve worker; do healthy "$(container "$service")" >/dev/null; done
at_most "from nothing to serve and worker healthy" $(($(now) - since)) ms "$((2 * healthy_bound_ms))"
for service in database serve worker; do
  is "health of $service" "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$service")")" healthy
done
for service in database simulator serve worker; do
  is "confinement of $service" "$(docker inspect --format \
    '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}' "$(container "$service")")" \
    'true [ALL] [no-new-privileges:true]'
done

merchant=$(compose exec -T serve /usr/local/bin/paywright merchant create 'Tea Shop' --json)
key=$(sed 's/.*"api_key":"\([^"]*\)".*/\1/' <<<"$merchant")
address=$(compose port simulator 8080)
is "where the public listener is published" "${address%:*}" 127.0.0.1
pay() {
  curl --silent --show-error --include --max-time 30 "http://$1/v1/payments" --header "Authorization: Bearer $key" \
    --header "Idempotency-Key: $2" --header 'Content-Type: application/json' \
    --data "{\"amount\": 1999, \"currency\": \"EUR\", \"reference\": \"$2\", \"payment_method\": \"pm_card_visa\"}" |
    tr -d '\r' >"$directory/$3"
}
status_of() { awk 'NR == 1 { print $2 }' "$directory/$1"; }
replayed() { sed -n 's/^idempotent-replayed: //Ip' "$directory/$1"; }
body() { sed '1,/^$/d' "$directory/$1"; }
pay "$address" order-1 first
is "a payment" "$(status_of first)" 201
is "is called a repetition" "$(replayed first)" ""
pay "$address" order-1 second
is "the same once more" "$(status_of second)" 201
is "is called a repetition" "$(replayed second)" true
is "has the same body" "$(body second | md5sum | cut -c1-8)" "$(body first | md5sum | cut -c1-8)"

say "a container of its own, as confined as it can be"
docker run --detach --name "$extra" --network "${project}_default" --publish 127.0.0.1:0:8080 \
  --read-only --cap-drop ALL --security-opt no-new-privileges --user 65532:65532 \
  --volume "$SECRETS_DIR/service_database_url:/run/secrets/database:ro" --env DATABASE_URL_FILE=/run/secrets/database \
  --env PAYWRIGHT_ALLOW_PLAINTEXT=true --env PAYWRIGHT_PROVIDER_URL=https://provider.invalid \
  --env PAYWRIGHT_PROVIDER_API_KEY=sk_test_unused "$SERVICE_IMAGE" serve --no-worker >/dev/null
at_most "until Docker calls it healthy" "$(healthy "$extra")" ms "$healthy_bound_ms"
is "its health" "$(docker inspect --format '{{.State.Health.Status}}' "$extra")" healthy
address=$(docker port "$extra" 8080 | head -n 1)
pay "$address" order-1 third
is "the first payment's answer from there" "$(status_of third), $(replayed third)" "201, true"
at_most "until it ended after SIGTERM" "$(stop "$extra")" ms "$stop_bound_ms"
is "its exit status" "$(exit_code "$extra")" 0

say "the end"
for service in serve worker; do
  id=$(container "$service")
  at_most "until $service ended after SIGTERM" "$(stop "$id")" ms "$stop_bound_ms"
  is "its exit status" "$(exit_code "$id")" 0
done
id=$(container database)
at_most "until the database ended" "$(stop "$id")" ms 20000
is "its exit status" "$(exit_code "$id")" 0

say "done: $missed missed"
[ "$missed" -eq 0 ]
