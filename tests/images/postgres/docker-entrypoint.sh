#!/bin/bash
# What tests and Compose rely on of the original's entry point: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and
# POSTGRES_INITDB_ARGS, each also as NAME_FILE; scripts in /docker-entrypoint-initdb.d; arguments for the server; and
# the line "database system is ready to accept connections", which appears on standard output when the first start is
# done with the set-up and on standard error when the server is there for others.
set -euo pipefail

# from_file NAME [DEFAULT]: exports NAME, from the environment or from the file that NAME_FILE names
from_file() {
  local name=$1 file=${1}_FILE
  if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
    echo "error: both $name and $file are set" >&2
    exit 1
  fi
  if [ -n "${!file:-}" ]; then
    export "$name=$(<"${!file}")"
  else
    export "$name=${!name:-${2:-}}"
  fi
  unset "$file"
}

create_cluster() {
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"
  from_file POSTGRES_INITDB_ARGS
  local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
    echo "error: the database is not set up and POSTGRES_PASSWORD is not set" >&2
    exit 1
  fi

  eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

  # Nobody outside may see a server that is half set up, so this one has no port.
  pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
  run_sql() {
    PGHOST='' PGHOSTADDR='' psql --quiet --no-psqlrc --no-password --set ON_ERROR_STOP=1 \
      --username "$POSTGRES_USER" "$@"
  }
  if [ "$POSTGRES_DB" != postgres ]; then
    echo 'CREATE DATABASE :"name";' | run_sql --dbname postgres --set "name=$POSTGRES_DB"
  fi
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh) if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
      *.sql) run_sql --dbname "$POSTGRES_DB" --file "$script" ;;
      *.sql.gz) gunzip --stdout "$script" | run_sql --dbname "$POSTGRES_DB" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
  unset POSTGRES_PASSWORD
  printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

case ${1:-} in -*) set -- postgres "$@" ;; esac
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" -eq 0 ]; then
  mkdir -p "$PGDATA"
  find "$PGDATA" /run/postgresql ! -user postgres -exec chown postgres '{}' +
  exec setpriv --reuid postgres --regid postgres --init-groups -- "$0" "$@"
fi

mkdir -p "$PGDATA"
chmod 0700 "$PGDATA" 2>/dev/null || true
[ -s "$PGDATA/PG_VERSION" ] || create_cluster
# Debian's default is localhost, the original's is everything; an argument of the caller's comes later and wins.
shift
exec postgres -c listen_addresses='*' "$@"
