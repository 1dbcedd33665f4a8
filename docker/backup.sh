#!/bin/sh
# docker/backup.sh DIRECTORY: the databases, runs, artifacts and secrets of the system that runs here, into a new
# directory. Jobs write a checkpoint first and go on afterwards; the API answers all the while.
#
# COMPOSE is the command to use; left out: docker compose.
set -eu
into=${1:?docker/backup.sh DIRECTORY: where to put the backup, a directory that does not exist yet}
compose=${COMPOSE:-docker compose}
here=$(dirname "$0")
env_file=${ENV_FILE:-$here/../.env}
umask 077
mkdir "$into"
# Whoever writes runs and points stands still, so that rows and files are of one moment.
$compose stop worker scheduler
trap '$compose start scheduler worker' EXIT
for database in barlow mlflow; do
    echo "database $database"
    $compose exec -T postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD pg_dump -h 127.0.0.1 -U postgres -Fc $database" \
        >"$into/$database.dump.part"
    mv "$into/$database.dump.part" "$into/$database.dump"
done
for of in "api runs" "mlflow artifacts"; do
    set -- $of
    echo "$2"
    $compose run --rm --no-deps -T --entrypoint tar "$1" -C /data -cf - "$2" >"$into/$2.tar.part"
    mv "$into/$2.tar.part" "$into/$2.tar"
done
# Last: a backup without it is not whole.
cp "$env_file" "$into/env"
echo "done: $into holds secrets; keep it as you keep them"
