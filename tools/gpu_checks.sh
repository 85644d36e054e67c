#!/usr/bin/env bash
# Tests the CUDA backend on the GPU of this machine; builds nothing.
#
#   tools/gpu_checks.sh [CHECK…]       after ./dev build; ./dev gpu is the same
#   MNEME_BUILD_DIR=/tmp/programs tools/gpu_checks.sh tests memcheck
#
# CHECKs, all but the last by default:
#   tests       every test that runs on CUDA
#   memcheck    compute-sanitizer over the tests of small shapes: accesses out of bounds, leaks
#   racecheck   the same: threads of a block that race for its shared memory
#   initcheck   the same: reads of device memory that nobody wrote
#   synccheck   the same: barriers that not all threads reach
#   full-KIND   memcheck, … over every test of the kernels: takes an hour
#
# The programs are found by name anywhere below the build directory. Prints one line for each program
# and check, the output of those that fail, and a summary. Exits with 0 if nothing was found, and
# plainly so where there is no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${MNEME_BUILD_DIR:-build/release}
logs=$(mktemp -d "${TMPDIR:-/tmp}/mneme-gpu-checks.XXXXXX")
trap 'rm -rf "$logs"' EXIT

# Programs with tests that run on CUDA, whose names then have "Cuda" in them.
kernel_programs=(backend_test sampling_test)
programs=("${kernel_programs[@]}" golden_test many_sessions_test split_invariance_test isolation_test
  learn_off_test learning_controls_test device_fault_test device_fault_server_test)

# What the sanitizers, which are slow, go over: every kernel, where it has tests of few elements, and
# the engine with recorded steps. PROGRAM:FILTER.
sanitized=(
  'backend_test:*/Cuda*-*AllocatesAligned*:*RefusesMore*:*SaysHowMuch*:*AtTheSize*:*SmallUpdatesSurvive*:*ALongPiece*:*RaggedLengths*:*DecodesOneLong*'
  'sampling_test:*Cuda*-*ChiSquare*:*LargeVocabulary*'
  'golden_test:*GreedyContinuation*_CudaBFloat16:*LearningGives*yarn_CudaFp8Delta:*LearningGives*yarn_CudaFloat32'
)

failed=()
skipped=()
passed=0

find_program() { find "$build" -name "$1" -type f -perm -u+x -print -quit 2>/dev/null; }

# check NAME COMMAND…: runs it and notes how it went.
check() {
  local name=$1 start=$SECONDS log="$logs/log"
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %-52s %4d s  %s\n' "$name" $((SECONDS - start)) \
      "$(sed -n 's/^\[  PASSED  \] //p' "$log" | tail -n 1)"
    sed -n '/: Skipped$/{n;s/^/        skipped: /p}' "$log" | sort -u
  else
    failed+=("$name")
    printf 'FAILED  %-52s %4d s\n' "$name" $((SECONDS - start))
    grep -vE '^\[ RUN      \]|^\[       OK \]' "$log" | head -n "${MNEME_GPU_LINES:-150}" |
      sed 's/^/        /'
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

# sanitize TOOL PROGRAM FILTER
# The driver's and the libraries' own calls return errors on purpose (a symbol that is not there, a
# memory type that is asked for): only device code is looked at.
sanitize() {
  local tool=$1 name=$2 filter=$3 program options=(--report-api-errors no --error-exitcode 86)
  find_or_skip "$name" || return 0
  case $tool in
    # cuBLASLt's kernels load whole tiles with the copy engine, which reads what lies between the
    # rows and behind the last one; results never depend on it.
    initcheck) options+=(--kernel-regex-exclude 'kns=cutlass' --kernel-regex-exclude 'kns=nvjet') ;;
  esac
  check "$tool $name" compute-sanitizer --tool "$tool" "${options[@]}" \
    "$program" --gtest_filter="$filter"
}

run_sanitizer() {
  local tool=$1 entry
  for entry in "${sanitized[@]}"; do
    sanitize "$tool" "${entry%%:*}" "${entry#*:}"
  done
}

run_full_sanitizer() {
  local name
  for name in "${kernel_programs[@]}"; do
    sanitize "$1" "$name" '*Cuda*'
  done
}

nvidia-smi -L 2>/dev/null | grep -q '^GPU' ||
  { echo 'gpu_checks: there is no GPU here (nvidia-smi lists none): nothing was checked'; exit 0; }
export PATH="$PATH:/usr/local/cuda/bin"
(($#)) || set -- tests memcheck racecheck initcheck synccheck
for what in "$@"; do
  case $what in
    tests) run_tests ;;
    memcheck | racecheck | initcheck | synccheck | full-*check)
      command -v compute-sanitizer >/dev/null ||
        { skipped+=("$what (no compute-sanitizer; it comes with the CUDA toolkit)"); continue; }
      case $what in
        full-*) run_full_sanitizer "${what#full-}" ;;
        *) run_sanitizer "$what" ;;
      esac
      ;;
    *)
      sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
done

printf '\ngpu_checks: %d passed, %d failed, %d skipped\n' \
  "$passed" "${#failed[@]}" "${#skipped[@]}"
((${#failed[@]} == 0)) || printf '  failed: %s\n' "${failed[@]}"
((${#skipped[@]} == 0)) || printf '  skipped: %s\n' "${skipped[@]}"
((${#failed[@]} == 0 && passed > 0))
