// The entry of `pnpm golden`: reads the environment, which nothing below does.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from './run.ts';

// Idle OpenMP threads that spin steal the cores of small kernels on a busy machine; read when the addon is loaded.
process.env['GOMP_SPINCOUNT'] ??= '1000';

const repository = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

process.exitCode = await runCommand(process.argv.slice(2), {
  cwd: process.env['INIT_CWD'] ?? process.cwd(),
  shared: join(dirname(repository), 'shared'),
  own: join(repository, 'tools', 'golden', 'fixtures'),
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
});
