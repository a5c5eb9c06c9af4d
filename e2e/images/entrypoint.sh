#!/bin/sh
# The entrypoint of the test image of PostgreSQL. It does what people rely on in docker-library's.
set -eu

: "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}"
: "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"

# from_file NAME: the variable may come from a file that NAME_FILE names.
from_file() {
  eval "value=\${$1:-} file=\${$1_FILE:-}"
  if [ -n "$file" ]; then
    [ -z "$value" ] || { echo "$1 and $1_FILE are both set" >&2; exit 1; }
    value=$(cat "$file")
  fi
  eval "$1=\$value"
}

case "${1:-postgres}" in
-*) set -- postgres "$@" ;;
esac
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chmod 0700 "$PGDATA" || true
  chmod 3775 /run/postgresql || true
  find "$PGDATA" ! -user postgres -exec chown postgres {} +
  find /run/postgresql ! -user postgres -exec chown postgres {} +
  exec gosu postgres "$0" "$@"
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
  echo "entrypoint: a database is there, nothing to initialise"
  exec "$@"
fi

from_file POSTGRES_PASSWORD
if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
  echo "entrypoint: POSTGRES_PASSWORD is not set" >&2
  exit 1
fi

echo "entrypoint: initdb"
mkdir -p "$PGDATA"
chmod 0700 "$PGDATA" || true
if [ -n "$POSTGRES_PASSWORD" ]; then
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/pwfile
  # shellcheck disable=SC2086
  initdb --username="$POSTGRES_USER" --pwfile=/tmp/pwfile ${POSTGRES_INITDB_ARGS:-}
  rm /tmp/pwfile
else
  # shellcheck disable=SC2086
  initdb --username="$POSTGRES_USER" ${POSTGRES_INITDB_ARGS:-}
fi
printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >>"$PGDATA/pg_hba.conf"

# A server that only its socket reaches, for the time of the initialisation.
export PGPASSWORD="$POSTGRES_PASSWORD"
pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
if [ "$POSTGRES_DB" != postgres ]; then
  psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc --dbname postgres \
    --set db="$POSTGRES_DB" <<'SQL'
CREATE DATABASE :"db";
SQL
fi
for f in /docker-entrypoint-initdb.d/*; do
  case "$f" in
  *.sh) echo "entrypoint: $f"; . "$f" ;;
  *.sql) echo "entrypoint: $f"; psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --dbname "$POSTGRES_DB" -f "$f" ;;
  esac
done
pg_ctl -D "$PGDATA" -m fast -w stop
unset PGPASSWORD
echo "entrypoint: the database is initialised"
exec "$@"
