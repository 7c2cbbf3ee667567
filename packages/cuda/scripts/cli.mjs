#!/usr/bin/env node
// `npx lomo-cuda build`: compiles the addon, kernels and all, from the sources this package carries. `npx lomo-cuda nvcc` brings a compiler.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [command, ...flags] = process.argv.slice(2);
const commands = { build: ['build.mjs', ...flags], nvcc: ['nvcc.mjs', 'install'] };
if (Object.hasOwn(commands, command ?? '')) {
  const [script, ...args] = commands[command];
  process.exitCode = spawnSync(process.execPath, [fileURLToPath(new URL(script, import.meta.url)), ...args], { stdio: 'inherit' }).status ?? 1;
} else {
  process.stderr.write(`usage: npx lomo-cuda build
  compiles build/Release/lomo_cuda.node; needs cmake, ninja, a C++20 compiler and nvcc of CUDA 13
       npx lomo-cuda nvcc
  installs nvcc 13.0 from PyPI where there is none; 300 MB, needs python3-venv
`);
  process.exitCode = command === undefined || command === '--help' ? 0 : 2;
}
