// `npm test`: the set-up phases of `npm start`, then every check and every test of the workspace; the last line is `N passed, N failed, N skipped`.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { explain, root } from './phase.mjs';
import { prepare } from './prepare.mjs';
import { check, conclude, emptyTally, vitest } from './suite.mjs';

const started = performance.now();
const tally = emptyTally();
try {
  const { members } = await prepare({ cuda: true });
  await check(tally, 'arrows', [process.execPath, 'tools/arrows/arrows.mjs'], { budget: 10 });
  await check(tally, 'oxlint', ['pnpm', 'exec', 'oxlint'], { budget: 30 });
  await check(tally, 'typecheck', ['pnpm', 'exec', 'turbo', 'run', 'typecheck', '--continue', '--concurrency=2', '--output-logs=new-only', '--ui=stream'], { budget: 120 });
  for (const { folder, name } of members) {
    if (existsSync(join(root, folder, 'vitest.config.ts'))) await vitest(tally, name, folder, { budget: 150 });
  }
  await check(tally, 'cuda machine code', [process.execPath, 'tools/cuda/sass.mjs'], { budget: 30 });
  await check(tally, 'cuda fibers', ['bash', 'packages/cuda/native/test/run.sh'], { budget: 30 });
  await vitest(tally, 'tools', 'tools', { budget: 180 });
} catch (error) {
  explain(error);
  tally.failures.push({ name: 'set-up', message: error.message });
}
process.stdout.write(`\n  all phases ${((performance.now() - started) / 1000).toFixed(0)} s\n`);
process.exit(conclude(tally));
