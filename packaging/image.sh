#!/bin/bash
# Builds the image of the wheel in dist/: image.sh ENGINE TAG [BASE]. ENGINE is docker, podman or buildah.
set -eu
cd "$(dirname "$0")/.."
engine=$1 tag=$2 base=${3-}
command -v "$engine" >/dev/null || { echo "$engine is not installed: image.sh ENGINE TAG [BASE] takes docker, podman or buildah"; exit 1; }
[ "$(ls dist/*.whl 2>/dev/null | wc -l)" = 1 ] || { echo "dist/ holds $(ls dist/*.whl 2>/dev/null | wc -l) wheels, and not one: rm -rf dist && make wheel"; exit 1; }
arguments=(-f packaging/Containerfile -t "$tag")
[ -z "$base" ] || arguments+=(--build-arg "BASE=$base")
"$engine" build "${arguments[@]}" .
