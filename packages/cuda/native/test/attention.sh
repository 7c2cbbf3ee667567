#!/usr/bin/env bash
# Builds and runs the tests of attention on fibers, plain and, in brief, under the sanitizers. `attention.sh N` tries N random cases
# besides the fixed ones.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${TMPDIR:-/tmp}/lomo-cuda-test"
mkdir -p "$out"
cxx="${CXX:-g++}"
flags=(-std=c++20 -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function -ffp-contract=off -I. -I../../tensor/native)

"$cxx" "${flags[@]}" -O1 -x c++ test/tile_test.cu fiber/*.cpp -o "$out/tile"
"$out/tile"

# build NAME FLAG...: the kernels on fibers, their host code, the test.
build() {
  local name="$1" objects=()
  shift
  for op in attention attention_backward; do
    "$cxx" "${flags[@]}" "$@" -DLOMO_DEVICE -DLOMO_FIBER -x c++ -c "ops/$op.cu" -o "$out/$name-$op-device.o"
    "$cxx" "${flags[@]}" "$@" -x c++ -c "ops/$op.cu" -o "$out/$name-$op-host.o"
    objects+=("$out/$name-$op-device.o" "$out/$name-$op-host.o")
  done
  "$cxx" "${flags[@]}" "$@" -x c++ test/attention_test.cu fiber/*.cpp -x none "${objects[@]}" -o "$out/$name"
}
build attention -O2
"$out/attention" "${1:-12}"
build attention-sanitized -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
# A kernel that fails is abandoned where it stands, and what its threads held with it.
ASAN_OPTIONS=detect_leaks=0 "$out/attention-sanitized" 4 brief
