// Conformance on the host double built with the address and undefined-behaviour sanitizers; Node itself is not, so their runtime is
// loaded before it.
import { execFileSync, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (command, args, env = {}) => {
  const { status } = spawnSync(command, args, { cwd: folder, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
};
const runtime = (name) => execFileSync(process.env.CXX ?? 'g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
run(process.execPath, ['scripts/build.mjs', '--double=asan', ...process.argv.slice(2).filter((one) => /^--(ops|out)=/.test(one))]);
const out = process.argv.find((one) => one.startsWith('--out='))?.slice(6) ?? join(folder, 'build', 'double-asan');
run(process.execPath, [join(folder, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--config', 'vitest.config.ts', 'test/conformance.test.ts', 'test/bits.test.ts'], {
  LOMO_TEST_DOUBLE: join(out, 'Release'),
  LD_PRELOAD: `${runtime('libasan.so')}:${runtime('libubsan.so')}`,
  ASAN_OPTIONS: 'detect_leaks=0:detect_stack_use_after_return=0',
  UBSAN_OPTIONS: 'print_stacktrace=1',
});
