#!/usr/bin/env bash
# Builds and runs the attention test on every instruction set, then portable under the sanitizers. `attention.sh speed` prints rates only.
set -euo pipefail
cd "$(dirname "$0")"
out="${TMPDIR:-/tmp}/lomo-attention-test"
mkdir -p "$out"
cxx="${CXX:-g++}"
flags=(-std=c++20 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi -fopenmp -I../../../tensor/native)
build() { nice -n 10 "$cxx" "${flags[@]}" "$@"; }

build -O3 -DLOMO_ISA=portable -c ../ops/attention.cpp -o "$out/portable.o" & first=$!
build -O3 -march=x86-64-v3 -DLOMO_ISA=avx2 -c ../ops/attention.cpp -o "$out/avx2.o"
wait "$first"
build -O3 -march=x86-64-v4 -mprefer-vector-width=512 -DLOMO_ISA=avx512 -c ../ops/attention.cpp -o "$out/avx512.o" & first=$!
build -O1 -c attention_test.cpp -o "$out/test.o"
wait "$first"
build -O3 -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512 -DLOMO_ISA=avx512_bf16 -c ../ops/attention.cpp -o "$out/avx512_bf16.o" & first=$!
wait "$first"
build -O3 -march=x86-64-v4 -c peak.cpp -o "$out/peak.o"
# Portable objects first: of each inline function that several objects hold, the linker keeps the first.
"$cxx" -fopenmp "$out"/test.o "$out"/portable.o "$out"/avx2.o "$out"/avx512.o "$out"/avx512_bf16.o "$out"/peak.o -o "$out/run"
"$out/run" "$@"
if [[ "${1:-}" != speed ]]; then
  build -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -DLOMO_PORTABLE_ONLY -DLOMO_ISA=portable attention_test.cpp ../ops/attention.cpp -o "$out/sanitized"
  OMP_NUM_THREADS=4 "$out/sanitized" 12
fi
