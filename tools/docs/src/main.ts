// Writes docs/ops.md. Called by docs.mjs, which builds first.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { cpu } from '@lomo/cpu';
import { opsPage } from './ops.ts';

const path = fileURLToPath(new URL('../../../docs/ops.md', import.meta.url));
const backend = cpu({ threads: 1 });
writeFileSync(path, opsPage(backend));
await backend[Symbol.asyncDispose]();
process.stdout.write(`wrote ${path}\n`);
