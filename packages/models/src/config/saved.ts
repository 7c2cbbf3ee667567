// config.json as it is saved: the file of the source with the one field that a conversion changes, the type of the weights.
import type { RealDiskType } from '../safetensors/diskType.ts';
import { parseJson } from '../json.ts';

/** How config.json calls the types (torch's names). */
const torchNames: Readonly<Record<RealDiskType, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

/** Both names of the field; a file may have either, or both. */
const dtypeKeys: readonly string[] = ['torch_dtype', 'dtype'];

/**
 * `bytes` of the config.json at `path`, saying that its weights are stored as `dtype`: `torch_dtype` and `dtype` are replaced where they say
 * something else, and `torch_dtype` is added at the end where neither is there and `dtype` is not F32 (many readers take silence for float32).
 * Every other byte stays as it was. Throws CorruptJson.
 */
export function configSaying(bytes: Uint8Array, dtype: RealDiskType, path: string): Uint8Array {
  parseJson(bytes, path); // from here on the text is known to be right
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const name = torchNames[dtype];
  const members = topLevel(text);
  const said = members.filter(({ key }) => dtypeKeys.includes(key));
  const wrong = said.filter(({ value }) => value !== `"${name}"` && value !== `"torch.${name}"`);
  const last = members.at(-1);
  const isSilent = said.length === 0 && dtype !== 'F32' && last !== undefined;
  if (wrong.length === 0 && !isSilent) return bytes;
  let out = text;
  if (isSilent) out = `${text.slice(0, last.to)},${last.gap}"torch_dtype": "${name}"${text.slice(last.to)}`;
  for (const { from, to } of wrong.toReversed()) out = `${out.slice(0, from)}"${name}"${out.slice(to)}`;
  return new TextEncoder().encode(out);
}

/** A field of the outermost object; `from` and `to` are where its value stands, `gap` is the white space before its key. */
interface Member {
  readonly key: string;
  readonly value: string;
  readonly gap: string;
  readonly from: number;
  readonly to: number;
}

/** The fields of the object that `text`, known to be JSON, consists of; none where it is something else. */
function topLevel(text: string): readonly Member[] {
  const members: Member[] = [];
  let depth = 0;
  let gap = '';
  let field: { readonly key: string; readonly gap: string } | null = null;
  let [from, to] = [-1, -1];
  const end = (): void => {
    if (field !== null && from >= 0) members.push({ ...field, value: text.slice(from, to), from, to });
    field = null;
    from = -1;
  };
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+|\s+/g)) {
    if (token.trim() === '') {
      gap = token;
      continue;
    }
    if (depth === 1 && (token === ',' || token === '}')) end();
    else if (depth === 1 && field === null && token.startsWith('"')) field = { key: JSON.parse(token) as string, gap };
    else if (field !== null && !(depth === 1 && token === ':')) {
      if (from < 0) from = index;
      to = index + token.length;
    }
    if (token === '{' || token === '[') depth++;
    else if (token === '}' || token === ']') depth--;
    gap = '';
  }
  return members;
}
