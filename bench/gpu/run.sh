#!/usr/bin/env bash
# Unpacks what bench/gpu/carry.mjs made, once, and runs the GPU bench with the arguments it is given. Needs bash, tar, and xz or python3.
# Results go to the checkout's bench/results unless --out names another folder; earlier ones there are gone on with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place="${TMPDIR:-/tmp}/lomo-gpu-@MARK@"
python="${PEER_PYTHON:-python3}"
if [ ! -e "$place/ready" ]; then
  rm -rf "$place"
  mkdir -p "$place"
  if command -v xz >/dev/null; then
    xz -dc "$here/node.xz" >"$place/node"
    xz -dc "$here/payload.tar.xz" | tar -C "$place" -xf -
  else
    "$python" -c 'import lzma, shutil, sys, tarfile
with lzma.open(sys.argv[1]) as packed, open(sys.argv[3] + "/node", "wb") as node: shutil.copyfileobj(packed, node)
tarfile.open(sys.argv[2], "r:xz").extractall(sys.argv[3])' "$here/node.xz" "$here/payload.tar.xz" "$place"
  fi
  chmod +x "$place/node"
  touch "$place/ready"
fi
peer=()
if command -v "$python" >/dev/null && "$python" -c 'import torch, transformers' 2>/dev/null; then peer=(--python "$(command -v "$python")"); fi
export PYTHONPATH="$place/site${PYTHONPATH:+:$PYTHONPATH}"
exec "$place/node" "$place/gpu.js" "${peer[@]}" --from "$place/results" --from "$here/../../results" --out "$here/../../results" "$@"
