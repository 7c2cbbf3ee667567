#!/usr/bin/env bash
# Builds and runs the tests of the fiber runtime and of the executor, plain and under the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${TMPDIR:-/tmp}/lomo-cuda-test"
mkdir -p "$out"
flags=(-std=c++20 -Wall -Wextra -Werror -Wno-unknown-pragmas -ffp-contract=off -I. -I../../tensor/native -x c++)
cxx="${CXX:-g++}"
"$cxx" "${flags[@]}" -O2 test/fiber_test.cu fiber/fiber.cpp fiber/context.cpp -o "$out/fiber"
"$out/fiber"
"$cxx" "${flags[@]}" -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all test/fiber_test.cu fiber/fiber.cpp fiber/context.cpp -o "$out/fiber-sanitized"
# A kernel that fails is abandoned where it stands, and what its threads held with it.
ASAN_OPTIONS=detect_leaks=0 "$out/fiber-sanitized"
"$cxx" "${flags[@]}" -O1 -g1 -fsanitize=thread test/executor_test.cpp -o "$out/executor-sanitized" -pthread
# Where the kernel places memory too widely for the thread sanitizer, it starts only without that.
"$out/executor-sanitized" || setarch -R "$out/executor-sanitized"
