#!/usr/bin/env bash
# Builds the image mneme:cpu with buildah, without Docker and without a registry: the base image is
# a minimal Debian made by debootstrap.
#
#   tools/build_image.sh FOLDER     FOLDER keeps the Debian system (bookworm-base)
#
# Needs root, network, buildah and debootstrap. Try the result with
#   BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs buildah from mneme:cpu
# and `buildah run` on the container whose name that prints.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($# == 1)) || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
base=$1/bookworm-base

[[ -d $base ]] || debootstrap --variant=minbase bookworm "$base"
if ! buildah inspect --type image localhost/debian-minbase >/dev/null 2>&1; then
  container=$(buildah from scratch)
  tar -C "$base" -c --exclude './dev/*' --exclude './proc/*' . |
    tar -C "$(buildah mount "$container")" -x
  buildah commit --quiet --rm "$container" localhost/debian-minbase
fi
buildah bud --layers --target cpu --build-arg BASE_IMAGE=localhost/debian-minbase --tag mneme:cpu .
