// tokenizers/NAME.json: ids and decoded texts, exactly.
import { openTokenizer } from '@lomo/data';
import { readJson, tokenizerFile } from '../format.ts';
import type { Row } from '../row.ts';
import { exact, skipped } from '../row.ts';
import type { Context, Discover } from '../section.ts';

/** Every JSON file of tokenizers/. */
export const tokenizers: Discover = (folder) =>
  folder.files('tokenizers').filter((file) => file.endsWith('.json')).map((file) => {
    const name = file.replace(/\.json$/, '');
    return { name: `tokenizers/${name}`, rows: (context) => rows(context, name) };
  });

async function* rows({ folder }: Context, name: string): AsyncGenerator<Row> {
  const at = `tokenizers/${name}`;
  const { found, tried } = folder.find(name, ['tokenizer.json', 'vocab.json']);
  if (found === null) {
    yield skipped(at, `no tokenizer ${name}: looked for ${tried.join(', ')}; name the folder that holds it with --models`);
    return;
  }
  const cases = await readJson(folder.path('tokenizers', `${name}.json`), tokenizerFile);
  await using tokenizer = await openTokenizer(found);
  const ids = await tokenizer.encodeAll(cases.map((one) => one.text));
  yield exact(`${at}/ids`, cases.length, cases.flatMap((one, i) => (ids[i]!.join() === one.ids.join() ? [] : [`${JSON.stringify(one.text)} is ${ids[i]!.join(' ')} here`])));
  for (const [row, skipSpecialTokens] of [['decoded', false], ['decoded without special tokens', true]] as const) {
    const texts = await tokenizer.decodeAll(cases.map((one) => one.ids), { skipSpecialTokens });
    const want = (one: (typeof cases)[number]): string => (skipSpecialTokens ? one.decoded_without_special : one.decoded);
    yield exact(`${at}/${row}`, cases.length, cases.flatMap((one, i) => (texts[i] === want(one) ? [] : [`${JSON.stringify(want(one))} is ${JSON.stringify(texts[i])} here`])));
  }
}
