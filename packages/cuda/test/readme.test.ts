// The README's example runs and asserts, on a machine with a GPU and without.
import { test } from 'vitest';
import { runReadme } from '../../../tools/readme/run.ts';

test('README examples run', () => runReadme(new URL('../README.md', import.meta.url)));
