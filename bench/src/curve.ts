// The process of one run of `bench sweep` and `bench precision`: options as JSON in the first argument, the curve as one line of JSON.
import type { CurveOptions } from './curves.ts';
import { curveOf } from './curves.ts';

// Read when the addon loads libgomp, so set before: see ours.ts.
process.env['GOMP_SPINCOUNT'] ??= '1000';

const curve = await curveOf(JSON.parse(process.argv[2] ?? '{}') as CurveOptions);
process.stdout.write(`${JSON.stringify(curve)}\n`);
