// lomo plan --html: one self-contained page with the memory of a step over time, for the run and the others planned beside it.
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { MemoryPlan } from '@lomo/parallel';
import { alignment, categories } from '@lomo/tensor';
import type { Category } from '@lomo/tensor';
import { pageRun, stretches, Texts } from './plan_page_data.ts';
import { pageScript } from './plan_page_script.ts';

/** What the page shows. */
export interface PlanPage {
  /** The model's name. */
  readonly title: string;
  /** Lines under it: device, batch, types. */
  readonly facts: readonly string[];
  /** What the run may take, drawn where the chart reaches it; null: no line. */
  readonly limit: { readonly bytes: number; readonly words: string } | null;
  /** In the order they are offered; at least one. The one that is `chosen` is shown first. */
  readonly runs: readonly { readonly name: string; readonly plan: MemoryPlan; readonly chosen: boolean }[];
}

/** Colours of categories, from the bottom of the stack to its top: on light paper and on dark. */
const colours: Readonly<Record<Category, readonly [light: string, dark: string]>> = {
  weights: ['#4c78a8', '#5b8cc0'],
  state: ['#8e6bb0', '#a482c8'],
  io: ['#6b5b4b', '#9c8873'],
  boundary: ['#2a9d8f', '#35b5a5'],
  saved: ['#54a24b', '#62b558'],
  recomputed: ['#9bd18b', '#8cc47b'],
  spill: ['#b5485f', '#d0637a'],
  factors: ['#f2a65a', '#f0a050'],
  gradient: ['#e45756', '#ee6a69'],
  logits: ['#eeca3b', '#e3c02f'],
  workspace: ['#a39e99', '#8b8783'],
};

/** Forward, recompute, backward, settle. */
const partColours = [['#9ecae1', '#3f6f8f'], ['#c7e9c0', '#4b7a45'], ['#fdae6b', '#a8672b'], ['#d9534f', '#e0625e']] as const;

/** Writes the page of `page` to `path`. Throws what the file system throws. */
export async function writePlanPage(path: string, page: PlanPage): Promise<void> {
  await writeFile(path, planPage(page));
}

/** The page as one text: it asks for nothing from anywhere, and its policy lets it run nothing but its own script. */
export function planPage({ title, facts, limit, runs }: PlanPage): string {
  const texts = new Texts();
  const packed = runs.map(({ name, plan, chosen }) => pageRun(plan, { name, chosen, texts }));
  const data = { stretches, unit: alignment, categories, order: Object.keys(colours), limit, texts: texts.list, runs: packed };
  const style = `${styleOf(0)}@media (prefers-color-scheme: dark) {${styleOf(1)}}${sheet}`;
  const policy = `default-src 'none'; base-uri 'none'; form-action 'none'; style-src '${hashOf(style)}'; script-src '${hashOf(pageScript)}'`;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}: memory of a step</title>
<style>${style}</style>
<main>
<h1>${escaped(title)}</h1>
${facts.map((fact) => `<p class="faint">${escaped(fact)}</p>`).join('\n')}
<div id="runs" role="group" aria-label="runs planned"></div>
<p id="facts"></p>
<div id="frame">
<canvas id="chart"></canvas>
<canvas id="over" tabindex="0" role="img" aria-label="Bytes live over the step, by category; arrow keys move the moment that is explained below"></canvas>
<div id="tip" hidden></div>
</div>
<div class="row"><span id="legend" class="legend"></span></div>
<div class="row faint"><span id="partlegend" class="legend"></span><span>left to right: work done, as arithmetic and bytes moved; every column is the fullest moment of its stretch</span></div>
<div class="row"><label><input type="checkbox" id="moving"> without weights and optimizer state</label> <label><input type="checkbox" id="same"> one scale for all runs</label></div>
<section>
<h2><span id="when"></span> <button type="button" id="back" hidden>back to the peak</button></h2>
<div id="words"></div>
<div id="tables">
<table><thead><tr><th>category</th><th class="number">live</th><th class="number">share</th></tr></thead><tbody id="categories"></tbody></table>
<div><table><thead><tr><th>largest tensors</th><th>category</th><th class="number">bytes</th></tr></thead><tbody id="tensors"></tbody></table><p id="others" class="faint"></p></div>
</div>
</section>
</main>
<script type="application/json" id="data">${embedded(data)}</script>
<script>${pageScript}</script>
</html>
`;
}

function styleOf(theme: 0 | 1): string {
  const named = Object.entries(colours).map(([name, pair]) => `--${name}:${pair[theme]}`);
  const parts = partColours.map((pair, i) => `--part${i}:${pair[theme]}`);
  const paper = theme === 0 ? ['--paper:#ffffff', '--ink:#202124', '--faint:#5f6368', '--line:#e4e6ea', '--raised:#f4f5f7', '--accent:#1a5fb4'] : ['--paper:#17181a', '--ink:#e8eaed', '--faint:#a0a6ad', '--line:#303338', '--raised:#222427', '--accent:#8ab4f8'];
  return `:root{${[...named, ...parts, ...paper].join(';')}}`;
}

const sheet = `
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px 20px 48px}
h1{font-size:20px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:24px 0 6px}
p{margin:2px 0}
.faint{color:var(--faint)}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
#runs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(270px,100%),1fr));gap:8px;margin:14px 0 10px}
button{font:inherit;color:inherit;background:var(--raised);border:1px solid var(--line);border-radius:6px;cursor:pointer}
#runs button{display:grid;grid-template-columns:1fr auto;gap:4px 8px;padding:7px 10px;text-align:left}
#runs .name{min-width:0;overflow-wrap:anywhere}
#runs button[aria-pressed=true]{border-color:var(--accent);box-shadow:0 0 0 1px var(--accent)}
button:focus-visible,canvas:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.bar{grid-column:1/-1;display:flex;height:8px;border-radius:2px;overflow:hidden}
.bar i{display:block;height:100%}
#back{font-size:13px;padding:1px 8px;margin-left:8px}
#frame{position:relative;height:clamp(280px,52vh,560px)}
canvas{position:absolute;inset:0;width:100%;height:100%}
#over{cursor:crosshair}
#tip{position:absolute;pointer-events:none;max-width:min(420px,80%);padding:7px 10px;background:var(--paper);border:1px solid var(--faint);border-radius:6px;box-shadow:0 2px 8px #0004;overflow-wrap:anywhere;font-size:13px}
.row,.legend{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:center}
.row{margin:4px 0 4px 72px;gap:4px 28px}
.swatch{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px;vertical-align:-1px;flex:none}
${[0, 1, 2, 3].map((i) => `.part${i}{background:var(--part${i})}`).join('')}
#tables{display:grid;grid-template-columns:minmax(240px,1fr) minmax(0,2.4fr);gap:12px 40px;align-items:start;margin-top:10px}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:600;color:var(--faint);white-space:nowrap}
th.number{text-align:right}
th,td{padding:3px 8px 3px 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
@media (max-width:700px){main{padding:14px 12px 32px}#tables{grid-template-columns:1fr}.row{margin-left:0}}
`;

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#39;');
}

/** JSON that no text inside it can end. */
function embedded(data: object): string {
  return JSON.stringify(data).replaceAll('<', '\\u003c').replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
}
