#!/bin/sh
# docker/lock.sh: writes what docker/Dockerfile installs, docker/requirements-*.txt: each distribution in the version that
# constraints.txt pins, with the hashes of all files of that version, so that no other file is ever installed. It asks the
# index for what it says of them and downloads none. `make lock` runs it.
#
# UV is the command to use; left out: uv.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
trap 'exit 1' INT TERM HUP
pins() { sed -n 's/^\([A-Za-z0-9._-]*\)==\([^ ;]*\).*/\1 \2/p' "$1" | awk '{ gsub(/[._-]+/, "-", $1); print tolower($1) "==" $2 }' | sort; }
# lock NAME WHAT...: for both kinds of machine, of which each distribution must have a wheel.
lock() {
    name=$1
    shift
    for machine in x86_64 aarch64; do
        "$uv" pip compile "$@" --quiet --constraint constraints.txt --python-version 3.11 \
            --python-platform $machine-manylinux_2_36 --only-binary :all: --generate-hashes --no-annotate \
            --custom-compile-command 'make lock' --output-file "$parts/$machine" >/dev/null
    done
    cmp -s "$parts/x86_64" "$parts/aarch64" || {
        echo "x86_64 and aarch64 need different distributions, and one lock is for both:" >&2
        diff "$parts/x86_64" "$parts/aarch64" >&2
        exit 1
    }
    pins constraints.txt >"$parts/pinned"
    more=$(pins "$parts/x86_64" | comm -23 - "$parts/pinned")
    [ -z "$more" ] || { echo "add to constraints.txt, which does not pin them:" $more >&2; exit 1; }
    mv "$parts/x86_64" "$parts/requirements-$name.txt"
    rm "$parts/aarch64"
}
sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml >"$parts/build.in"
lock build "$parts/build.in"
lock api pyproject.toml --extra service
lock worker pyproject.toml --extra worker --extra trainer
lock mlflow pyproject.toml --extra tracking
mv "$parts"/requirements-*.txt docker/
