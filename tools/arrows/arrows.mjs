// Checks the import arrows and the house rules of this workspace, or of the one named as argument. Exits 1 when one is broken.
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkWorkspace } from './check.mjs';

const root = resolve(process.argv[2] ?? fileURLToPath(new URL('../..', import.meta.url)));
const { failures, warnings, allowances, files } = checkWorkspace(root);
for (const line of warnings) console.log(`budget   ${line}`);
for (const line of allowances) console.log(`allowed  ${line}`);
for (const line of failures) console.log(`broken   ${line}`);
console.log(`${files} files: ${failures.length} broken, ${warnings.length} over budget, ${allowances.length} allowed`);
process.exit(failures.length === 0 ? 0 : 1);
