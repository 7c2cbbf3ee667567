// The entry of a process of the GPU bench: see process.ts.
import type { Job } from './process.ts';
import { work } from './process.ts';

await work(JSON.parse(process.argv[2] ?? '{}') as Job, (finding) => void process.stdout.write(`${JSON.stringify(finding)}\n`));
