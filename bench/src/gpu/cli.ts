// The command line of `pnpm bench gpu`: options in, a report out, and the status to end with.
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Facts } from '@lomo/cuda';
import { benchFolder, machine } from '../manners.ts';
import { gpu, parts } from './gpu.ts';
import { commitOf, libraryFolders, seenGpu } from './machine.ts';
import { processFile } from './part.ts';
import type { Job } from './process.ts';
import { runLines } from './runner.ts';
import { carriedAddon, doubleFolder, programFolder } from './where.ts';
import type { Where } from './where.ts';

const usage = `pnpm bench gpu [${parts.map(({ name }) => name).join('|')} ...]   the proofs that need a GPU; all of them unless some are named

  --double         on the host double, at tiny shapes: a rehearsal that needs no GPU and proves nothing about one
  --device N       which GPU, from 0
  --python PATH    an interpreter with torch and transformers, for PyTorch's side (or PEER_PYTHON); ours alone without it
  --shared FOLDER  golden/, models/ and tokenizers/; ../shared unless given
  --budget SECONDS ends in time; what was not reached is measured by the next call
  --rounds N       ours and PyTorch's in turn this often (2)
  --shapes LIST    of the training part, tokens x rows; the first is what bars name
  --out FOLDER     where results go; bench/results unless given (a new temporary folder with --double)
  --from FOLDER    earlier results, besides those in bench/results; may be repeated
  --again          measures the named parts anew; else what was found on this device at this commit counts
  --any-commit     what was found at other commits counts too
  --check          status 1 where a bar is missed; --json prints missed, open and claims as one line
`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(2).filter((word, i) => i > 0 || word !== 'gpu'),
    allowPositionals: true,
    options: {
      double: { type: 'boolean', default: false },
      device: { type: 'string', default: '0' },
      python: { type: 'string' },
      shared: { type: 'string' },
      budget: { type: 'string' },
      rounds: { type: 'string' },
      shapes: { type: 'string' },
      out: { type: 'string' },
      from: { type: 'string', multiple: true, default: [] },
      again: { type: 'boolean', default: false },
      'any-commit': { type: 'boolean', default: false },
      check: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const number = (text: string, name: string, least: number): number => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < least) throw new Error(`--${name} ${text}: expected a whole number from ${least}`);
    return n;
  };
  const python = values.python ?? process.env['PEER_PYTHON'];
  const seconds = values.budget === undefined ? 7 * 86_400 : number(values.budget, 'budget', 1);
  const addon = carriedAddon();
  const where: Where = values.double ? { double: doubleFolder() } : { gpu: number(values.device, 'device', 0), folders: libraryFolders(python), ...(addon === undefined ? {} : { addon }) };
  const shared = [values.shared, join(programFolder, 'shared'), join(benchFolder, '..', '..', 'shared')].find((folder) => folder !== undefined && existsSync(join(folder, 'golden')));
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const start = (job: Job, { seconds: most, heard }: { readonly seconds: number; readonly heard: (line: unknown) => void }) => runLines([process.execPath, processFile(), JSON.stringify(job)], { seconds: most, heard });
  let facts: Facts | null = null;
  const opened = await start({ kind: 'facts', where }, { seconds: 120, heard: (line) => void (facts = line as Facts) });
  if (facts === null) throw new Error(`no backend could be opened: ${opened.words}`);
  const { name, memory, libraries, kernels } = facts as Facts;
  const seen = 'gpu' in where ? seenGpu(where.gpu) : null;
  const stamp = { commit: commitOf(), device: name, driver: seen?.driver ?? libraries[0]?.version ?? 'unknown' };
  say(`${name}, ${(memory / 2 ** 30).toFixed(1)} GiB, driver ${stamp.driver}; ${libraries.map((one) => `${one.name} ${one.version} (${one.path})`).join(', ')}; kernels ${kernels || 'on the host'}; commit ${stamp.commit}`);
  const folder = values.out === undefined ? (values.double ? mkdtempSync(join(tmpdir(), 'lomo-gpu-double-')) : join(benchFolder, 'results')) : resolve(values.out);
  const shapes = (values.shapes ?? (values.double ? '32x1,32x2' : '1024x1,1024x4,1024x8,2048x1,2048x2,2048x4')).split(',');
  const report = await gpu({
    parts: positionals,
    where,
    double: doubleOrNull(),
    stamp,
    scale: { tiny: values.double, shapes, rounds: number(values.rounds ?? '2', 'rounds', 1), cases: values.double ? 2 : 20 },
    python,
    shared,
    folder,
    former: [join(benchFolder, 'results'), ...values.from.map((one) => resolve(one))],
    seconds,
    again: values.again,
    anyCommit: values['any-commit'],
    start,
    say,
  });
  if (values.json) process.stdout.write(`${JSON.stringify({ ...stamp, missed: report.missed, open: report.open, claims: report.ticks, files: report.files })}\n`);
  else process.stdout.write(`${[machine(), ...report.lines, '', ...report.files].join('\n')}\n${report.missed.length} bars missed, ${report.open.length} open\n`);
  return values.check && report.missed.length > 0 ? 1 : 0;
}

function doubleOrNull(): Where | null {
  try {
    return { double: doubleFolder() };
  } catch {
    return null;
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench gpu: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
