#!/usr/bin/env bash
# Prints the packages whose shared libraries the programs given need, one a line.
#   tools/runtime_packages.sh PROGRAM…
set -euo pipefail
for program in "$@"; do
  ldd "$program"
done | awk '$2 == "=>" { sub(".*/", "", $3); print $3 }' | sort -u | while read -r library; do
  # Only the name: a merged /usr lets the same file be found under two paths.
  owner=$(dpkg-query --search "*/$library" | grep -m 1 "/lib/[^:]*/$library$") ||
    { echo "no package owns $library" >&2; exit 1; }
  echo "${owner%%:*}"
done | sort -u
