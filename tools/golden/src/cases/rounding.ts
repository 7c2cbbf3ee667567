// numbers/bf16.json and f16.json: rounding to 16 bits, by the conversions of @lomo/tensor and by the backend's cast kernel.
import { fromBf16, fromF16, toBf16, toF16, cast } from '@lomo/tensor';
import type { DType } from '@lomo/tensor';
import { readJson, roundingFile } from '../format.ts';
import type { Row } from '../row.ts';
import { exact } from '../row.ts';
import type { Context, Discover } from '../section.ts';

const kinds = { bf16: { to: toBf16, from: fromBf16, infinity: 0x7f80 }, f16: { to: toF16, from: fromF16, infinity: 0x7c00 } } as const;
type Kind = keyof typeof kinds;

/** Where the files are. */
export const rounding: Discover = (folder) =>
  (Object.keys(kinds) as Kind[]).filter((kind) => folder.has('numbers', `${kind}.json`)).map((kind) => ({ name: `numbers/${kind}`, rows: (context) => rows(context, kind) }));

async function* rows({ folder, engine }: Context, kind: Kind): AsyncGenerator<Row> {
  const at = `numbers/${kind}`;
  const table = await readJson(folder.path('numbers', `${kind}.json`), roundingFile);
  const inputs = new Float32Array(Uint32Array.from(table, ([bits]) => bits).buffer);
  const { to, from } = kinds[kind];
  yield exact(`${at}/conversion`, table.length, differences(kind, table, (i) => to(inputs[i]!)));
  // Widening is exact, so that a 16-bit value comes back from its own value.
  yield exact(`${at}/widened and back`, table.length, differences(kind, table, (i) => to(from(table[i]![1]))));
  const { narrow, wide } = await engine.onDevice(async (device) => {
    const source = device.allocate({ shape: [inputs.length], dtype: 'f32' }, 'io');
    device.write(source, inputs);
    const made = (tensor: typeof source, dtype: DType) => device.own(() => {
      const result = cast(tensor, dtype);
      return { result, keep: [result] };
    });
    const halves = made(source, kind);
    const again = made(halves, 'f32');
    return { narrow: await device.read(halves), wide: await device.read(again) };
  });
  yield exact(`${at}/cast kernel`, table.length, differences(kind, table, (i) => narrow[i]!));
  yield exact(`${at}/cast kernel, widened`, table.length, differences(kind, table, (i) => to(wide[i]!)));
}

function differences(kind: Kind, table: readonly (readonly [number, number])[], got: (i: number) => number): readonly string[] {
  const isNaN = (bits: number): boolean => (bits & 0x7fff) > kinds[kind].infinity;
  return table.flatMap(([bits, want], i) => {
    const ours = got(i);
    if (ours === want || (isNaN(ours) && isNaN(want))) return [];
    return [`0x${bits.toString(16)} is 0x${ours.toString(16)} here, 0x${want.toString(16)} in the file`];
  });
}
