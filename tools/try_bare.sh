#!/usr/bin/env bash
# Tries the README's commands on a bare system: a fresh minimal Debian in a chroot of its own, and a
# clean clone of the commit that is checked out.
#
#   tools/try_bare.sh FOLDER [VERB…]     the verbs of ./dev to run, in order (test demo)
#
# FOLDER keeps the untouched system (<suite>-base, made once with debootstrap) beside the one that is
# used up (<suite>-run, made anew each time). SUITE=bookworm unless set; any base that stands there
# already is taken as it is. Needs root and network.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
suite=${SUITE:-bookworm}
(($# >= 1)) || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
base=$1/$suite-base run=$1/$suite-run
shift
(($#)) || set -- test demo

[[ -d $base ]] || debootstrap --variant=minbase "$suite" "$base"
rm -rf --one-file-system "$run"
cp -a --reflink=auto "$base" "$run"
cp /etc/resolv.conf "$run/etc/resolv.conf"
git clone --quiet --no-local "$repository" "$run/mneme"

for verb in "$@"; do
  printf '== ./dev %s\n' "$verb"
  start=$SECONDS
  # The mounts and the processes end with the namespace.
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child bash -c '
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/dev/shm"
    exec chroot "$1" /usr/bin/env -i HOME=/root PATH="$PATH" /mneme/dev "$2"' \
    bash "$run" "$verb" </dev/null
  printf '== ./dev %s: passed in %d s\n' "$verb" $((SECONDS - start))
done
