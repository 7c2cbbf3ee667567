// Temporary folders and hand-made safetensors files for the tests.
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** The folder of shared golden values; absent on a machine that has only the repository. */
export const golden = '/work/shared/golden';
export const hasGolden = existsSync(join(golden, 'models'));
export const stories = '/work/shared/models/stories260k';
export const hasStories = existsSync(stories);

/** A fresh folder, removed after the test. */
export async function temporary(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lomo-models-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes of a safetensors file with this header text and so many data bytes; `length` overrides the header length. */
export function rawFile(header: string, data: number, length?: bigint): Uint8Array {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.byteLength + data);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.byteLength), true);
  bytes.set(text, 8);
  for (let i = 0; i < data; i++) bytes[8 + text.byteLength + i] = (i * 7 + 1) & 0xff;
  return bytes;
}

/** Writes such a file and returns its path. */
export async function rawFileAt(folder: string, file: { header: string; data: number; length?: bigint; name?: string }): Promise<string> {
  const path = join(folder, file.name ?? 'model.safetensors');
  await writeFile(path, rawFile(file.header, file.data, file.length));
  return path;
}
