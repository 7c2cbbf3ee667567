// NAME/: everything about one pretrained model, beside its batches.json. What is not in the folder, or not known here, is a skipped row.
import type { GoldenFolder } from '../folder.ts';
import { skipped } from '../row.ts';
import type { Row } from '../row.ts';
import type { Context, Discover, Section } from '../section.ts';
import { accumulation } from './accumulation.ts';
import { forward } from './forward.ts';
import { greedy } from './greedy.ts';
import { trajectories } from './trajectories.ts';

type Part = (context: Context, name: string, model: string) => AsyncGenerator<Row>;

/** A part by its file, and the further files it reads. */
const parts: readonly { readonly file: string; readonly reads: RegExp; readonly rows: Part }[] = [
  { file: 'forward.json', reads: /^(forward\.json|logits\.safetensors|(\w+_)?gradients\.safetensors)$/, rows: forward },
  { file: 'greedy.json', reads: /^greedy\.json$/, rows: greedy },
  { file: 'trajectories.json', reads: /^(trajectories\.json|weights\/.*\.safetensors)$/, rows: trajectories },
  { file: 'accumulation.json', reads: /^accumulation\.(json|safetensors)$/, rows: accumulation },
];

const notOurs = new Map([['library.json', 'it compares lomo_optim with the textbook rules; nothing of this workspace is in it']]);
const reserved = new Set(['models', 'rules', 'tokenizers', 'numbers']);

/** Every folder with a batches.json. */
export const runFolders: Discover = (folder) =>
  folder.folders().filter((name) => !reserved.has(name) && folder.has(name, 'batches.json')).flatMap((name) => sections(folder, name));

function sections(folder: GoldenFolder, name: string): readonly Section[] {
  const { found, tried } = folder.find(name, ['config.json']);
  const known = parts.map(({ file, rows }): Section => {
    const part = `${name}/${file.replace('.json', '')}`;
    if (!folder.has(name, file)) return { name: part, rows: () => single(skipped(part, `${name}/${file} is not in the folder`)) };
    if (found === null) return { name: part, rows: () => single(skipped(part, `no model ${name}: looked for ${tried.join(', ')}; name the folder that holds it with --models`)) };
    return { name: part, rows: (context) => rows(context, name, found) };
  });
  return [...known, { name, rows: () => strangers(folder, name) }];
}

async function* single(row: Row): AsyncGenerator<Row> {
  yield row;
}

/** Files no part reads. */
async function* strangers(folder: GoldenFolder, name: string): AsyncGenerator<Row> {
  const files = [...folder.files(name), ...folder.files(name, 'weights').map((file) => `weights/${file}`)];
  for (const file of files) {
    if (file === 'batches.json') continue;
    const part = parts.find(({ reads }) => reads.test(file));
    if (part !== undefined && folder.has(name, part.file)) continue;
    const reason = part === undefined ? (notOurs.get(file) ?? 'no check reads this file') : `${part.file}, which describes it, is not in the folder`;
    yield skipped(`${name}/${file}`, reason);
  }
}
