// `pnpm bench`: builds what the benches need, which takes a moment when nothing changed, then runs it with the same arguments.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const turbo = join(root, 'node_modules', 'turbo', 'bin', 'turbo');
const build = spawnSync(process.execPath, [turbo, 'run', 'build', '--filter=@lomo-internal/bench...', '--output-logs=errors-only', '--ui=stream'], {
  cwd: root,
  encoding: 'utf8',
  env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', NO_COLOR: '1' },
});
if (build.status !== 0) {
  process.stderr.write(`${build.stdout ?? ''}${build.stderr ?? ''}${build.error === undefined ? '' : `${build.error.message}\n`}bench: the build failed; \`pnpm install\` if packages are missing\n`);
  process.exit(2);
}
await import(process.argv[2] === 'gpu' ? './dist/gpu.js' : './dist/main.js');
