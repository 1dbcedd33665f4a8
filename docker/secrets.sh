#!/bin/sh
# docker/secrets.sh [FILE]: writes .env beside docker-compose.yml, or FILE, once: random passwords, the first admin
# token, the recorder's token for MLflow, and this host's name. Nothing in it is ever overwritten: the databases keep the passwords they were made with.
set -eu
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
chmod 600 "$file"
# Written beside it and renamed, so that a stop in between leaves no half secret.
part=$file.part
trap 'rm -f "$part"' EXIT
trap 'exit 1' INT TERM HUP
cp "$file" "$part"
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
add() {
    grep -q "^$1=." "$part" && return
    [ -n "$2" ] || { echo "no value for $1: is /dev/urandom there?" >&2; exit 1; }
    printf '%s=%s\n' "$1" "$2" >>"$part"
}
# What was added by hand may lack the end of its line.
[ ! -s "$part" ] || [ -z "$(tail -c 1 "$part")" ] || echo >>"$part"
add POSTGRES_PASSWORD "$(random 24)"
add BARLOW_DATABASE_PASSWORD "$(random 24)"
add BARLOW_OWNER_PASSWORD "$(random 24)"
add MLFLOW_DATABASE_PASSWORD "$(random 24)"
add REDIS_PASSWORD "$(random 24)"
add BARLOW_ADMIN_TOKEN "barlow_$(random 32)"
add BARLOW_MLFLOW_TOKEN "$(random 32)"
add BARLOW_NODE_NAME "$(uname -n | tr -c 'A-Za-z0-9.\n-' -)"
mv "$part" "$file"
