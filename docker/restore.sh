#!/bin/sh
# docker/restore.sh DIRECTORY: what docker/backup.sh wrote, into a system that has no data yet: new volumes, on this host
# or another one. Start it with `make up` afterwards.
#
# COMPOSE is the command to use; left out: docker compose.
set -eu
from=${1:?docker/restore.sh DIRECTORY: a directory that docker/backup.sh wrote}
case $from in /*) ;; *) from=$PWD/$from ;; esac
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}
env_file=${ENV_FILE:-.env}
for part in env barlow.dump mlflow.dump runs.tar artifacts.tar; do
    [ -f "$from/$part" ] || { echo "$from has no $part: it is no whole backup" >&2; exit 1; }
done
if [ -e "$env_file" ] && grep -vxFf "$env_file" "$from/env" >/dev/null; then
    echo "$env_file holds other secrets than the backup: it is of another system. If that may go, with all its data," >&2
    echo "run first: docker compose down --volumes && mv $env_file $env_file.old" >&2
    exit 1
fi
[ -e "$env_file" ] || (umask 077 && cp "$from/env" "$env_file")
# Secrets that the version of the backup did not have yet.
sh docker/secrets.sh "$env_file"
# Another host has no image yet.
$compose build api
$compose up --detach --wait postgres
$compose run --rm -T databases
ask() { $compose exec -T postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD $1 -h 127.0.0.1 -U postgres $2"; }
tables=$(ask psql "-d barlow -Atc \"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'\"")
if [ "$tables" != 0 ]; then
    echo "the run database here holds data already; a restore goes into new volumes: docker compose down --volumes" >&2
    exit 1
fi
for database in barlow mlflow; do
    echo "database $database"
    owner=$database
    [ $database = mlflow ] || owner=barlow_owner
    # All of it or nothing, and everything belongs to its owner. Rights are given by the next `make up`.
    ask pg_restore "-d $database --no-owner --no-privileges --role=$owner --single-transaction --exit-on-error" \
        <"$from/$database.dump"
done
for of in runs artifacts; do
    echo "$of"
    $compose run --rm --no-deps -T volumes -C /data -xf - <"$from/$of.tar"
done
echo "done; start it with \`make up\`"
