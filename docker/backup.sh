#!/bin/sh
# docker/backup.sh DIRECTORY: the databases, runs, artifacts and secrets of the system that runs here, into a new
# directory. Jobs write a checkpoint first and go on afterwards; nothing is trained meanwhile. The API answers.
#
# COMPOSE is the command to use; left out: docker compose.
set -eu
into=${1:?docker/backup.sh DIRECTORY: where to put the backup, a directory that does not exist yet}
case $into in /*) ;; *) into=$PWD/$into ;; esac
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}
env_file=${ENV_FILE:-.env}
umask 077
if [ -e "$into" ]; then
    echo "$into is there already; a backup goes into a new directory" >&2
    exit 1
fi
$compose exec -T postgres true || { echo "the system does not run here; start it with make up" >&2; exit 1; }
part=$into.part
rm -rf "$part"
mkdir -p "$part"
# Whoever writes runs and points stands still, so that rows and files are of one moment; and goes on, whatever happens.
trap 'rm -rf "$part"; $compose up --detach --no-deps --no-recreate scheduler worker' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
$compose stop worker scheduler
for database in barlow mlflow; do
    echo "database $database"
    $compose exec -T postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD pg_dump -h 127.0.0.1 -U postgres -Fc $database" \
        >"$part/$database.dump"
done
for of in runs artifacts; do
    echo "$of"
    $compose run --rm --no-deps -T volumes -C /data -cf - "$of" >"$part/$of.tar"
done
cp "$env_file" "$part/env"
# The name last: what has it is whole.
mv "$part" "$into"
echo "done: $into holds secrets; keep it as you keep them"
