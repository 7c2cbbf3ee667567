// Compiles the addon with cmake-js and Ninja, showing its progress.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { packageFolder } from './native.ts';

/** Runs `cmake-js build` in this package's folder with further `flags`; resolves to its exit code. Throws where cmake-js is not installed. */
export function buildAddon(flags: readonly string[] = []): Promise<number> {
  const manifest = createRequire(import.meta.url).resolve('cmake-js/package.json');
  const script = join(dirname(manifest), 'bin', 'cmake-js');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, 'build', '-G', 'Ninja', ...flags], { cwd: packageFolder, stdio: 'inherit' });
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      if (signal === null && code === 0) process.stdout.write(`built ${join(packageFolder, 'build', 'Release', 'lomo_cpu.node')}\n`);
      resolve(code ?? 1);
    });
  });
}
