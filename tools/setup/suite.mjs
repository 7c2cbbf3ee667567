// Runs checks and vitest folders as phases and sums them: the whole of `npm test` and the reduced leg on another Node are lists of these.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PhaseFailed, cache, explain, phase, root, runLogged } from './phase.mjs';

/** An empty sum of results. */
export function emptyTally() {
  return { passed: 0, failures: [], skips: [] };
}

/** One command that either holds or not (a linter, a type check): counts as one case. Never throws. */
export async function check(tally, name, command, options = {}) {
  try {
    await phase(name, async (say) => {
      const result = await runLogged(name, command, { progress: say, cwd: options.cwd ?? root });
      if (result.status !== 0) throw new PhaseFailed(`${name}: \`${command.join(' ')}\` ended with status ${result.status}`, result.log);
      tally.passed++;
      return result.text.trim().split('\n').at(-1)?.slice(0, 90) ?? '';
    }, { budget: options.budget });
  } catch (error) {
    explain(error);
    tally.failures.push({ name, message: error.message });
  }
}

/** The vitest cases of one folder (relative to the root), in this Node. A run that ends without a report counts as one failure. Never throws. */
export async function vitest(tally, name, folder, options = {}) {
  const report = join(cache, 'logs', `tally-${name.replaceAll(/[^\w.-]+/g, ' ').trim().replaceAll(' ', '-')}.json`);
  rmSync(report, { force: true });
  try {
    await phase(name, async (say) => {
      const program = join(root, folder, 'node_modules', 'vitest', 'vitest.mjs');
      const binary = existsSync(program) ? program : join(root, 'node_modules', 'vitest', 'vitest.mjs');
      const command = [process.execPath, binary, 'run', '--reporter=verbose', `--reporter=${join(root, 'tools', 'setup', 'tally-reporter.mjs')}`, '--maxWorkers=2', ...(options.filters ?? [])];
      const result = await runLogged(name, command, { cwd: join(root, folder), env: { LOMO_TALLY: report }, progress: say });
      if (!existsSync(report)) throw new PhaseFailed(`${name}: vitest ended with status ${result.status} and no report`, result.log);
      const found = JSON.parse(readFileSync(report, 'utf8'));
      const own = (one) => ({ ...one, name: `${folder}/${one.name}` });
      tally.passed += found.passed;
      tally.failures.push(...found.failures.map(own));
      tally.skips.push(...found.skips.map(own));
      if (found.passed + found.failures.length + found.skips.length === 0) tally.failures.push({ name, message: `${folder} has no test` });
      else if (result.status !== 0 && found.failures.length === 0) throw new PhaseFailed(`${name}: vitest ended with status ${result.status} though no case failed`, result.log);
      const slow = found.slow.length === 0 ? '' : `; over 5 s: ${found.slow.map((one) => `${one.name.split(' > ').at(-1)} ${one.seconds.toFixed(0)} s`).join(', ')}`;
      return `${found.passed} passed, ${found.failures.length} failed, ${found.skips.length} skipped${found.failures.length > 0 ? `; log ${result.log}` : slow}`;
    }, { budget: options.budget });
  } catch (error) {
    explain(error);
    tally.failures.push({ name, message: error.message });
  }
}

/** Prints failures, skipped cases with their reasons, and as the last line `N passed, N failed, N skipped`. Returns the exit status. */
export function conclude(tally) {
  if (tally.failures.length > 0) process.stdout.write('\nFailed:\n');
  for (const { name, message } of tally.failures) process.stdout.write(`- ${name}\n${message.split('\n').slice(0, 12).map((line) => `    ${line}`).join('\n')}\n`);
  if (tally.skips.length > 0) process.stdout.write('\nSkipped:\n');
  for (const { name, reason } of tally.skips) process.stdout.write(`- ${name}: ${reason ?? 'NO REASON GIVEN'}\n`);
  process.stdout.write(`\n${tally.passed} passed, ${tally.failures.length} failed, ${tally.skips.length} skipped\n`);
  return tally.failures.length === 0 ? 0 : 1;
}
