#!/usr/bin/env bash
# Shows what learning while reading is worth: starts a server with the bundled model on the CPU,
# streams one long document into two sessions, one that learns and one that does not, and asks both
# for every fact in it.
#
#   tools/demo.sh                      after ./dev build; ./dev demo does both
#   MNEME_BUILD_DIR=build/asan tools/demo.sh
#
# The last line is "demo: recall learning=0.NN frozen=0.NN". Exits with 0 if the session that
# learns recalls at least 0.85 of the facts and the frozen one at most 0.10. Leaves nothing behind.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin="${MNEME_BUILD_DIR:-build/release}/bin"
model=models/mneme-demo
work="$(mktemp -d "${TMPDIR:-/tmp}/mneme-demo.XXXXXX")"
server_pid=

clean_up() {
  if [[ -n $server_pid ]]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  printf 'demo: %s\n' "$1" >&2
  [[ ! -s $work/server.log ]] || tail -n 20 "$work/server.log" >&2
  exit 1
}

for program in mneme mneme-server; do
  [[ -x $bin/$program ]] || fail "$bin/$program is missing: run ./dev build"
done

start_server() {
  "$bin/mneme-server" --model "$model" --backend cpu --port 0 --metrics_port 0 \
    --port_file "$work/ports" --data_dir "$work/data" --drain_seconds 1 >"$work/server.log" 2>&1 &
  server_pid=$!
  local tries
  for ((tries = 0; tries < 600; ++tries)); do
    [[ ! -s $work/ports ]] || break
    kill -0 "$server_pid" 2>/dev/null || fail "the server did not start"
    sleep 0.1
  done
  [[ -s $work/ports ]] || fail "the server did not say its ports within a minute"
  { read -r port && read -r metrics_port; } <"$work/ports"
  export MNEME_SERVER="127.0.0.1:$port"
  "$bin/mneme" health --wait 60 >/dev/null || fail "the server does not serve"
}

printf 'Starting mneme-server with %s on the CPU.\n' "$model"
start_server
printf 'It serves gRPC on %s and metrics on http://127.0.0.1:%s/metrics.\n\n' \
  "$MNEME_SERVER" "$metrics_port"

"$bin/mneme" eval --task "$model/recall_task.json" --tokens 16384 --facts 32 --seed 1 |
  tee "$work/result" || fail "the evaluation failed"

cat <<END

To go on by hand:
  $bin/mneme-server --model $model --backend cpu --port 50051 --metrics_port 9090
  $bin/mneme chat                        in a second terminal; then tell it a code:
      The door code of Anna is 4711.
      What is the door code of Anna?
  http://127.0.0.1:9090/metrics          what the server measures
  $bin/mneme --help                      what else there is

END

read -r learning frozen < <(sed -n 's/^recall learning=\([0-9.]*\) frozen=\([0-9.]*\)$/\1 \2/p' \
  "$work/result") || fail "the evaluation printed no result"
printf 'demo: recall learning=%s frozen=%s\n' "$learning" "$frozen"
awk -v learning="$learning" -v frozen="$frozen" \
  'BEGIN { exit !(learning >= 0.85 && frozen <= 0.10) }' || exit 1
