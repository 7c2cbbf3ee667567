// The process of our side of `bench train`: options as JSON in the first argument, the result as one line of JSON.
import type { OursOptions } from './measure.ts';
import { measure } from './measure.ts';

// Read when the addon loads libgomp, so set before: threads that spin long between kernels take the cores others need.
process.env['GOMP_SPINCOUNT'] ??= '1000';

const result = await measure(JSON.parse(process.argv[2] ?? '{}') as OursOptions);
process.stdout.write(`${JSON.stringify(result)}\n`);
