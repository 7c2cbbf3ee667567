// The reduced leg for another Node version, after `npm test` has built everything: the pure packages' tests and pack-and-install.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { phase, root } from './phase.mjs';
import { workspace } from './prepare.mjs';
import { check, conclude, emptyTally, vitest } from './suite.mjs';
import { checkNode, ensurePnpm } from './system.mjs';

const pure = ['@lomo/tensor', '@lomo/parallel', '@lomo/optim', '@lomo/models', '@lomo/data', '@lomo/trainer'];
const tally = emptyTally();
const version = checkNode();
await phase('pnpm', async () => ensurePnpm(), { budget: 30 });
for (const { folder, name } of workspace()) {
  if (pure.includes(name) && existsSync(join(root, folder, 'vitest.config.ts'))) await vitest(tally, `${name} on ${version}`, folder, { budget: 120 });
}
await vitest(tally, `pack on ${version}`, 'tools', { filters: ['pack'], budget: 120 });
// The addon speaks N-API: the binary that another Node built has to load in this one.
await check(tally, `cpu addon on ${version}`, [process.execPath, '--input-type=module', '-e', "await import('@lomo/cpu'); console.log('loads')"], { cwd: join(root, 'apps', 'lomo'), budget: 10 });
process.exit(conclude(tally));
