// Finds the runnable examples of a Markdown text: the fenced ts blocks that open with `// example`.

/** One runnable block: its TypeScript text and the 1-based line of the README on which that text begins. */
export interface Example {
  readonly code: string;
  readonly line: number;
}

/** The examples of `markdown` in order; throws, naming `path` and the line, when there is none or when one asserts nothing. */
export function examplesOf(markdown: string, path: string): readonly Example[] {
  const lines = markdown.split(/\r?\n/);
  const examples: Example[] = [];
  for (let start = 0; start < lines.length; start++) {
    if (!/^```ts\s*$/.test(lines[start] ?? '')) continue;
    let end = start + 1;
    while (end < lines.length && !/^```\s*$/.test(lines[end] ?? '')) end++;
    const code = lines.slice(start + 1, end).join('\n');
    if (code.startsWith('// example')) examples.push({ code: `${code}\n`, line: start + 2 });
    start = end;
  }
  if (examples.length === 0) throw new Error(`${path} has no example: add a \`\`\`ts block that starts with \`// example\``);
  for (const { code, line } of examples) {
    if (!/\bassert\b/.test(code)) throw new Error(`the example at ${path}:${line} asserts nothing: use node:assert/strict`);
  }
  return examples;
}
