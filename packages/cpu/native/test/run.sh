#!/usr/bin/env bash
# Builds and runs the kernel tests: every instruction set at full optimization, then the portable one under the sanitizers. `run.sh speed` prints GB/s.
set -euo pipefail
cd "$(dirname "$0")"
out="${TMPDIR:-/tmp}/lomo-kernel-test"
mkdir -p "$out"
ops=(adalomo adamw_update cache_write cast cross_entropy elementwise embedding gate lomo_update norm normal_fill rms_norm rope sample silu_mul token_sum update_sums vector_f16)
tests=(main forward_test loss_test updates_test rounding_test adalomo_test f16_test speed)
flags=(-std=c++20 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi -fopenmp -I../../../tensor/native)
cxx="${CXX:-g++}"

# compile <folder> <isa> <flags of the isa>...
compile() {
  local folder="$1" isa="$2"; shift 2
  mkdir -p "$folder"
  for op in "${ops[@]}"; do echo "$cxx ${flags[*]} -DLOMO_ISA=$isa $* -c ../ops/$op.cpp -o $folder/$isa.$op.o"; done
  [[ "$isa" != portable ]] || echo "$cxx ${flags[*]} -I.. $* -c ../onednn/widen.cpp -o $folder/portable.widen.o"
  echo "$cxx ${flags[*]} -DLOMO_ISA=$isa $* -c simd_test.cpp -o $folder/$isa.simd_test.o"
}
parallel_build() { xargs -P "$(nproc)" -I{} nice -n 10 sh -c '{}'; }

if [[ "${1:-}" != sanitize ]]; then
  { compile "$out/fast" portable -O3
    compile "$out/fast" avx2 -O3 -march=x86-64-v3
    compile "$out/fast" avx512 -O3 -march=x86-64-v4
    for t in "${tests[@]}"; do echo "$cxx ${flags[*]} -O1 -c $t.cpp -o $out/fast/test.$t.o"; done
  } | parallel_build
  # Portable objects first: of each inline function that several objects hold, the linker keeps the first.
  "$cxx" -fopenmp "$out"/fast/test.*.o "$out"/fast/portable.*.o "$out"/fast/avx2.*.o "$out"/fast/avx512.*.o -o "$out/fast/run"
  "$out/fast/run" "$@"
fi
if [[ "${1:-}" != speed ]]; then
  sanitize=(-O1 -g1 -fno-var-tracking -fsanitize=address,undefined -fno-sanitize-recover=all)
  { compile "$out/sanitized" portable "${sanitize[@]}"
    for t in "${tests[@]}"; do echo "$cxx ${flags[*]} ${sanitize[*]} -DLOMO_PORTABLE_ONLY -c $t.cpp -o $out/sanitized/test.$t.o"; done
  } | parallel_build
  "$cxx" -fopenmp -fsanitize=address,undefined "$out"/sanitized/*.o -o "$out/sanitized/run"
  "$out/sanitized/run"
fi
