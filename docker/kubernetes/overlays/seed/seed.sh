#!/bin/sh
# Copies the model versions below $1 that $2 does not have yet. Each is copied beside its place and then renamed, so that
# a service which watches $2 never sees half of one.
set -eu
cd "$1"
for version in */[0-9]*/; do
    version=${version%/}
    name=${version%/*}
    if [ -e "$2/$version" ]; then
        echo "$version is there already"
        continue
    fi
    mkdir -p "$2/$name"
    draft=$(mktemp -d "$2/$name/.draft-XXXXXX")
    trap 'rm -rf "$draft"' EXIT
    cp -R "$version/." "$draft"
    chmod 755 "$draft"
    sync
    mv "$draft" "$2/$version"
    echo "$version is copied"
done
