// Reads a run's YAML: YAML 1.2, bounded in size, depth and aliases, nothing in it executed or fetched, every complaint with file and line.
import { LomoError, isLomoError } from '@lomo/tensor';
import { nodeFiles, readWhole } from '@lomo/models';
import type { Locate, ParsedRun } from '@lomo/trainer';
import { parseRun } from '@lomo/trainer';
import { Composer, isMap, isPair, isScalar, LineCounter, Parser } from 'yaml';
import type { CST, Document, Node } from 'yaml';

/** Most bytes of a run's file. */
export const runBytes = 256 * 1024;
/** Deepest nesting: the library composes by recursion, which a deep file would run out of stack. */
export const runDepth = 32;
/** Most entries of all maps and lists together: the library compares each key with those before it. */
export const runEntries = 10_000;
/** Most nodes that aliases may multiply into; a run has no use for any. */
const aliases = 20;

/** Settings of `path` with `overrides` on top. Throws ConfigError naming file and line. */
export async function readRun(path: string, overrides: Readonly<Record<string, unknown>> = {}): Promise<ParsedRun> {
  const text = await readText(path);
  const lines = new LineCounter();
  const document = documentOf(text, path, lines);
  const raw = plainOf(document, path);
  const locate: Locate = (keys) => {
    if (keys.length > 0 && Object.hasOwn(overrides, String(keys[0]))) return 'command line';
    const offset = offsetOf(document, keys);
    return offset === null ? path : `${path}:${lines.linePos(offset).line}`;
  };
  const settings = typeof raw === 'object' && raw !== null ? { ...raw, ...overrides } : (raw ?? overrides);
  // Copied by assignment it would vanish into the prototype instead of being unknown.
  if (typeof settings === 'object' && Object.hasOwn(settings, '__proto__')) throw new LomoError('ConfigError', `${locate(['__proto__'])}: unknown key '__proto__'`, { path });
  return parseRun(settings, locate);
}

/** A value from the command line, read as YAML: `1e-3`, `false`, `[1, 2]`. Throws ConfigError that begins with `what`. */
export function yamlValue(text: string, what: string): unknown {
  return plainOf(documentOf(text, what, new LineCounter()), what);
}

async function readText(path: string): Promise<string> {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(await readWhole(nodeFiles, path, runBytes));
  } catch (error) {
    const why = isLomoError(error, 'FileError') && error.details['errno'] === 'ENOENT' ? 'there is no such file' : error instanceof TypeError ? 'not valid UTF-8' : error instanceof Error ? error.message : String(error);
    throw new LomoError('ConfigError', `${path}: ${why}`, { path }, error);
  }
}

function documentOf(text: string, path: string, lines: LineCounter): Document {
  const wrong = (offset: number, why: string): LomoError => new LomoError('ConfigError', `${path}:${lines.linePos(offset).line}: ${why}`, { path });
  if (text.length > runBytes) throw new LomoError('ConfigError', `${path}: over ${runBytes} characters`, { path });
  const tokens = [...new Parser(lines.addNewLine).parse(text)];
  measure(tokens, wrong);
  const composer = new Composer({ prettyErrors: false, uniqueKeys: true, lineCounter: lines, logLevel: 'error', version: '1.2' });
  const documents = [...composer.compose(tokens, true, text.length)];
  const document = documents[0]!;
  const problem = document.errors[0];
  if (problem !== undefined) throw wrong(problem.pos[0], problem.message.slice(0, 500));
  if (documents.length > 1) throw wrong(documents[1]!.range[0], 'a second document begins; a run is one');
  return document as Document;
}

/** Refuses what is too deep or has too many entries, without recursion. */
function measure(tokens: readonly CST.Token[], wrong: (offset: number, why: string) => LomoError): void {
  const waiting: { readonly token: CST.Token; readonly depth: number }[] = tokens.map((token) => ({ token, depth: 0 }));
  let entries = 0;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { token, depth } = next;
    if (depth > runDepth) throw wrong(token.offset, `nested deeper than ${runDepth}`);
    if ('value' in token && token.value !== undefined) waiting.push({ token: token.value, depth });
    if (!('items' in token)) continue;
    for (const item of token.items) {
      if (++entries > runEntries) throw wrong(token.offset, `more than ${runEntries} entries`);
      for (const inner of [item.key, item.value]) if (inner !== undefined && inner !== null) waiting.push({ token: inner, depth: depth + 1 });
    }
  }
}

/** The document as plain objects. */
function plainOf(document: Document, path: string): unknown {
  try {
    return document.toJS({ maxAliasCount: aliases });
  } catch (error) {
    throw new LomoError('ConfigError', `${path}: ${error instanceof Error ? error.message : String(error)}`, { path }, error);
  }
}

function offsetOf(document: Document, keys: readonly (string | number)[]): number | null {
  for (let depth = keys.length; depth > 0; depth--) {
    const parent = document.getIn(keys.slice(0, depth - 1), true);
    const key = keys[depth - 1];
    const container = depth === 1 ? document.contents : parent;
    if (isMap(container)) {
      const pair = container.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === key);
      const range = (pair?.key as Node | undefined)?.range;
      if (range) return range[0];
    }
    const node = document.getIn(keys.slice(0, depth), true) as Node | undefined;
    if (node?.range) return node.range[0];
  }
  return null;
}
