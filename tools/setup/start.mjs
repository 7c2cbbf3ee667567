// `npm start`: from a bare clone to a fine-tuning run you can watch. Plain Node (>= 20.19), no dependency; further arguments go to `lomo quickstart`.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { explain, root } from './phase.mjs';
import { prepare } from './prepare.mjs';

try {
  await prepare();
} catch (error) {
  explain(error);
  process.exit(1);
}
const child = spawn(process.execPath, [join(root, 'apps', 'lomo', 'dist', 'cli.js'), 'quickstart', ...process.argv.slice(2)], { cwd: process.env.INIT_CWD ?? root, stdio: 'inherit' });
// Ctrl-C reaches the child by the terminal's process group; this process only waits, so that the run can end its step.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => signal === 'SIGTERM' && child.kill('SIGTERM'));
child.once('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)));
