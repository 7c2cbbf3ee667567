#!/usr/bin/env node
// `npx @lomo/cpu build`: compiles the addon from the sources this package carries.
import { buildAddon } from './build.ts';

const [command, ...flags] = process.argv.slice(2);
if (command === 'build') {
  process.exitCode = await buildAddon(flags);
} else {
  process.stderr.write('usage: npx @lomo/cpu build [cmake-js flags]\n  compiles build/Release/lomo_cpu.node; needs cmake, ninja and a C++20 compiler\n');
  process.exitCode = command === undefined || command === '--help' ? 0 : 2;
}
