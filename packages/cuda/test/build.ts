// Builds the addon for the host double, and the double, before any test; a second or two where nothing changed.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** vitest's global set-up; nothing where LOMO_TEST_DOUBLE names the folder of a build. Throws where the build fails, with its output. */
export default function build(): void {
  if (process.env['LOMO_TEST_DOUBLE'] !== undefined) return;
  const { status, stdout, stderr } = spawnSync(process.execPath, [fileURLToPath(new URL('../scripts/build.mjs', import.meta.url)), '--double'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`building the host double failed:\n${stdout}${stderr}`);
}
