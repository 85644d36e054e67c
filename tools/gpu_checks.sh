#!/usr/bin/env bash
# Tests the CUDA backend on the GPU of this machine; builds nothing.
#
#   tools/gpu_checks.sh [CHECK…]       after ./dev build; ./dev gpu is the same
#   MNEME_BUILD_DIR=/tmp/programs tools/gpu_checks.sh tests memcheck
#   MNEME_GPU_SHARDS=8             processes of a program under compute-sanitizer, side by side (4)
#   MNEME_GPU_SECONDS=600          how long each of them may take (1800)
#
# CHECKs, all by default:
#   tests       every test that runs on CUDA
#   memcheck    compute-sanitizer over the tests of small shapes: accesses out of bounds
#   racecheck   the same: threads of a block that race for its shared memory
#   initcheck   the same: reads of device memory that nobody wrote
#   synccheck   the same: barriers that not all threads reach
#
# The programs are found by name anywhere below the build directory. Prints one line for each program
# and check, the output of those that fail, and a summary. Exits with 0 if nothing was found, and
# plainly so where there is no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${MNEME_BUILD_DIR:-build/release}
shards=${MNEME_GPU_SHARDS:-4}
seconds=${MNEME_GPU_SECONDS:-1800}
logs=$(mktemp -d "${TMPDIR:-/tmp}/mneme-gpu-checks.XXXXXX")
trap 'rm -rf "$logs"' EXIT

# Programs with tests that run on CUDA, whose names then have "Cuda" in them.
programs=(backend_test sampling_test golden_test many_sessions_test split_invariance_test
  update_waiting_test update_deferred_test isolation_test learn_off_test
  learning_controls_test device_fault_test device_fault_server_test state_image_test
  image_sections_test history_test session_tiers_test warm_up_test)

# What compute-sanitizer, which is slow, goes over: every kernel, where its tests are of small shapes,
# and the engine with recorded steps. Prints "PROGRAM FILTER" lines for a tool.
sanitized() {
  local large='*AttentionRaceTest*:*AllocatesAligned*:*RefusesMore*:*SaysHowMuch*:*AtTheSize*:*VeryLongChunks*:*SmallUpdatesSurvive*'
  [[ $1 != racecheck ]] || large+=':*OnWideRows*' # minutes
  local backend='*/Cuda*' golden='*Greedy*yarn_Cuda*16:*Learning*yarn_CudaFp8*:*Learning*yarn_Cuda*32'
  # The tool does not see what kernels store with the copy engine, as cuBLASLt's do in bf16, and
  # takes it for unwritten where our kernels read it: so not where they read its products in bf16.
  if [[ $1 == initcheck ]]; then
    backend='*/CudaFloat32:*AttentionTest*/Cuda*:*RowsTest*/Cuda*:*LinearTest*/Cuda*'
    golden='*LearningGives*CudaFloat32'
  fi
  echo "backend_test $backend-$large"
  local draws='*Cuda*-*ChiSquare*:*LargeVocabulary*'
  [[ $1 != racecheck ]] || draws='*OnceInEverySetting*Cuda*' # a second for each draw
  echo "sampling_test $draws"
  [[ $1 == racecheck ]] || echo "golden_test $golden"
}

failed=()
skipped=()
passed=0

find_program() { find "$build" -name "$1" -type f -perm -u+x -print -quit 2>/dev/null; }

# check NAME COMMAND…: runs it and notes how it went.
check() {
  local name=$1 start=$SECONDS log="$logs/log"
  shift
  # Where all tests skip, the backend did not load.
  if "$@" >"$log" 2>&1 && grep -q '^\[  PASSED  \] [1-9]' "$log"; then
    passed=$((passed + 1))
    printf 'ok      %-52s %4d s  %s\n' "$name" $((SECONDS - start)) \
      "$(sed -n 's/^\[  PASSED  \] //p; s/^=* *\(\(ERROR\|RACECHECK\) SUMMARY\)/\1/p' "$log" | paste -sd ' ')"
    sed -n '/: Skipped$/{n;s/^/        skipped: /p}' "$log" | sort -u
  else
    failed+=("$name")
    printf 'FAILED  %-52s %4d s\n' "$name" $((SECONDS - start))
    grep -vE '^\[ RUN      \]|^\[       OK \]' "$log" |
      sed "s/^/        /; ${MNEME_GPU_LINES:-150}q" || true
  fi
}

# Sets `program` to the path of the one named; notes that it is skipped if there is none.
find_or_skip() {
  program=$(find_program "$1")
  [[ -n $program ]] || { skipped+=("$1 (not in $build)"); return 1; }
}

run_tests() {
  local name program
  for name in "${programs[@]}"; do
    find_or_skip "$name" || continue
    check "$name" "$program" --gtest_filter='*Cuda*'
  done
}

# sanitize TOOL PROGRAM FILTER: fails if a test fails or the tool finds something in our kernels. API
# errors are left to the tests: the driver and the libraries cause some on purpose.
sanitize() {
  local report status=0 options=(--tool "$1" --report-api-errors no --error-exitcode 86
    --print-limit 100000)
  # FlashInfer's producer warps arrive at CUTLASS barriers whose earlier phase others waited for.
  [[ $1 != synccheck ]] || options+=(--kernel-name-exclude kernel_substring=PrefillWithKVCache)
  report=$(timeout "$seconds" compute-sanitizer "${options[@]}" "$2" --gtest_filter="$3" 2>&1 \
    </dev/null) || status=$?
  printf '%s\n' "$report"
  ((status == 0)) || { [[ $1 == racecheck && $status == 86 ]] && only_library_races "$report"; }
}

# Whether all tests passed and cuBLASLt's kernels (nvjet) are all that racecheck reports. They cannot be
# left out by name: the tool then crashes in kernels behind them.
only_library_races() {
  grep -q '^\[  PASSED  \]' <<<"$1" && ! grep -q '^\[  FAILED  \]' <<<"$1" &&
    ! grep -E '(Error|Warning): Race reported' <<<"$1" | grep -qv 'Read access at nvjet_'
}

# sanitize in as many processes side by side as there are shards: the tool keeps a processor busy, and
# the GPU hardly.
sanitize_sharded() {
  local shard tests count=$shards pids=() status=0
  tests=$("$2" --gtest_list_tests --gtest_filter="$3" | grep -c '^  ') || true
  ((tests > 0)) || { echo "no test of $2 matches $3"; return 1; }
  ((tests >= count)) || count=$tests # without a test nothing would use the GPU, which is an error
  for ((shard = 0; shard < count; ++shard)); do
    GTEST_TOTAL_SHARDS=$count GTEST_SHARD_INDEX=$shard sanitize "$@" >"$logs/shard.$shard" &
    pids+=($!)
  done
  for ((shard = 0; shard < count; ++shard)); do
    wait "${pids[shard]}" || { status=1; echo "shard $shard of $count failed:"; }
    cat "$logs/shard.$shard"
  done
  return "$status"
}

run_sanitizer() {
  local name filter program
  while read -r name filter; do
    find_or_skip "$name" || continue
    check "$1 $name" sanitize_sharded "$1" "$program" "$filter"
  done < <(sanitized "$1")
}

nvidia-smi -L 2>/dev/null | grep -q '^GPU' ||
  { echo 'gpu_checks: there is no GPU here (nvidia-smi lists none): nothing was checked'; exit 0; }
export PATH="$PATH:/usr/local/cuda/bin"
(($#)) || set -- tests memcheck racecheck initcheck synccheck
for what in "$@"; do
  case $what in
    tests) run_tests ;;
    memcheck | racecheck | initcheck | synccheck)
      command -v compute-sanitizer >/dev/null ||
        { skipped+=("$what (no compute-sanitizer; it comes with the CUDA toolkit)"); continue; }
      run_sanitizer "$what"
      ;;
    *)
      sed -n '2,19s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
done

printf '\ngpu_checks: %d passed, %d failed, %d skipped\n' \
  "$passed" "${#failed[@]}" "${#skipped[@]}"
((${#failed[@]} == 0)) || printf '  failed: %s\n' "${failed[@]}"
((${#skipped[@]} == 0)) || printf '  skipped: %s\n' "${skipped[@]}"
((${#failed[@]} == 0 && passed > 0))
