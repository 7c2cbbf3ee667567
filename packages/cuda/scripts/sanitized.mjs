// Conformance on the host double built with the address and undefined-behaviour sanitizers; Node itself is not, so their runtime is
// loaded before it. `--slice`: the double alone is built so, with a few kernel files whose threads share memory, beside the plain addon.
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (command, args, env = {}) => {
  const { status } = spawnSync(command, args, { cwd: folder, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
};
const runtime = (name) => execFileSync(process.env.CXX ?? 'g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
const given = process.argv.slice(2);
const slice = given.includes('--slice');
const option = (name) => given.find((one) => one.startsWith(`--${name}=`))?.slice(name.length + 3);
const out = option('out') ?? join(folder, 'build', slice ? 'double-asan-slice' : 'double-asan');
const ops = slice ? 'norm|rope|token_sum' : option('ops');
const plain = process.env.LOMO_TEST_DOUBLE ?? join(folder, 'build', 'double', 'Release');
run(process.execPath, ['scripts/build.mjs', '--double=asan', `--out=${out}`, ...(ops === undefined ? [] : [`--ops=${ops}`]), ...(slice ? ['--target=lomo_double'] : [])]);
if (slice) copyFileSync(join(plain, 'lomo_cuda.node'), join(out, 'Release', 'lomo_cuda.node'));
const files = slice ? ['test/edges.test.ts', '-t', 'schedule \\d+ (norm_add|mean|sum_squares|rope) '] : ['test/conformance.test.ts', 'test/edges.test.ts', 'test/bits.test.ts'];
run(process.execPath, [join(folder, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--config', 'vitest.config.ts', ...files], {
  LOMO_TEST_DOUBLE: join(out, 'Release'),
  LD_PRELOAD: `${runtime('libasan.so')}:${runtime('libubsan.so')}`,
  ASAN_OPTIONS: 'detect_leaks=0:detect_stack_use_after_return=0',
  UBSAN_OPTIONS: 'print_stacktrace=1',
});
