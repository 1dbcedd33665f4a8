#!/bin/sh
# docker/digests.sh [FILE]: has .env beside docker-compose.yml, or FILE, name the images of others by digest, as their
# registry has them now, so that no build and no start takes another one. Run again it renews them. An image that FILE
# names with a tag is asked for in place of the default.
set -eu
file=${1:-$(dirname "$0")/../.env}
case $file in /*) ;; *) file=$PWD/$file ;; esac
cd "$(dirname "$0")/.."
umask 077
part=$file.part
trap 'rm -f "$part"' EXIT
trap 'exit 1' INT TERM HUP
touch "$part"
[ ! -e "$file" ] || cat "$file" >"$part"
[ ! -s "$part" ] || [ -z "$(tail -c 1 "$part")" ] || echo >>"$part"
# pin NAME DEFAULT
pin() {
    image=$(sed -n "s/^$1=//p" "$part" | tail -n 1)
    image=${image:-$2}
    image=${image%@*}
    case ${image##*/} in
    *:*) ;;
    *)
        echo "$1 in $file has no tag to ask for; write $1=$2, or take the line out. Nothing was changed" >&2
        exit 1
        ;;
    esac
    docker pull --quiet "$image" >/dev/null || {
        echo "no registry gave $image (above is why); nothing was changed. Without digests the tag counts" >&2
        exit 1
    }
    digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
        grep "^${image%:*}@" | head -n 1)
    [ -n "$digest" ] || { echo "the engine knows no digest of $image; nothing was changed" >&2; exit 1; }
    grep -v "^$1=" "$part" >"$part.new" || true
    echo "$1=$image@${digest#*@}" >>"$part.new"
    mv "$part.new" "$part"
}
pin PYTHON_IMAGE "$(sed -n 's/^ARG PYTHON_IMAGE=//p' docker/Dockerfile)"
pin POSTGRES_IMAGE "$(sed -n 's/.*\${POSTGRES_IMAGE:-\(.*\)}.*/\1/p' docker-compose.yml | head -n 1)"
pin REDIS_IMAGE "$(sed -n 's/.*\${REDIS_IMAGE:-\(.*\)}.*/\1/p' docker-compose.yml | head -n 1)"
mv "$part" "$file"
