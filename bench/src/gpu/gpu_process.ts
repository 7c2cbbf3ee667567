// The entry of a process of the GPU bench: see process.ts. An error is told in its own words, which name the next step.
import type { Job } from './process.ts';
import { work } from './process.ts';

try {
  await work(JSON.parse(process.argv[2] ?? '{}') as Job, (finding) => void process.stdout.write(`${JSON.stringify(finding)}\n`));
} catch (error) {
  const code = error instanceof Error && 'code' in error ? `${String(error.code)}: ` : '';
  process.stderr.write(`${code}${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
