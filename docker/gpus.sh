#!/bin/sh
# docker/gpus.sh [FILE]: has .env beside docker-compose.yml, or FILE, name the compose file with the GPUs, for every
# docker compose after it. What FILE names already is never changed.
set -eu
file=${1:-$(dirname "$0")/../.env}
line=$(grep '^COMPOSE_FILE=' "$file" | tail -n 1 || true)
case $line in
'') echo COMPOSE_FILE=docker-compose.yml:docker/compose.gpu.yml >>"$file" ;;
*docker/compose.gpu.yml*) ;;
*)
    echo "$file has $line: add :docker/compose.gpu.yml to that line for the GPUs" >&2
    exit 1
    ;;
esac
