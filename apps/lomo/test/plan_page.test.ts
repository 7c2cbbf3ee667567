// The page of `lomo plan --html`: alone in the world, its data the plan's, names of others nothing but text, small however long the step.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createModel } from '@lomo/models';
import { adamw, lomo, Optimizer, optimOps } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import type { MemoryPlan } from '@lomo/parallel';
import { blockWords, makePlan, peakOf, placeWords, Program } from '@lomo/parallel';
import { alignment, categories, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test, vi } from 'vitest';
import { modelFolder } from '../../../tools/tiny/folder.ts';
import { plan as planVerb } from '../src/commands/plan.ts';
import type { PlanPage } from '../src/commands/plan_page.ts';
import { planPage } from '../src/commands/plan_page.ts';
import type { PageRun } from '../src/commands/plan_page_data.ts';
import { stretches } from '../src/commands/plan_page_data.ts';
import { pageScript } from '../src/commands/plan_page_script.ts';
import { openPage } from './page_stub.ts';
import { smallConfig } from './small.ts';

const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps] });

function planOf(rule: Rule, { keeps = false, microBatches = 1, name = '' } = {}): Promise<MemoryPlan> {
  const tokens = 128;
  return makePlan(backend, function* (device) {
    let step: (() => Promise<unknown>) | null = null;
    yield {
      name: 'setup',
      run: () => {
        const model = createModel(smallConfig, device, { dtype: 'bf16', maxLength: tokens });
        if (name !== '') device.allocate({ shape: [64], dtype: 'f32' }, 'io', name);
        const { passes } = new Optimizer(device, model.parameters, { rule, clip: { norm: 1, scope: 'global' } });
        const program = new Program(device, model, { microBatches, tokens, maxSegments: 1, maxLength: tokens, keeps: () => keeps });
        const nothing = new Int32Array(tokens);
        const batch = { tokens: nothing, targets: nothing, positions: nothing, starts: Int32Array.of(0, tokens) };
        step = () => program.run({ step: 1, seed: 0, lr: 0, passes, batches: Array.from({ length: microBatches }, () => batch) });
      },
    };
    yield { name: 'step', run: () => step!().then(() => {}) };
  });
}

interface Data {
  readonly texts: readonly string[];
  readonly runs: readonly PageRun[];
}

const dataTextOf = (page: string): string => /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(page)![1]!;
const dataOf = (page: string): Data => JSON.parse(dataTextOf(page)) as Data;
const pageOf = (plan: MemoryPlan, more: Partial<PlanPage> = {}): string => planPage({ title: 'small', facts: [], limit: null, runs: [{ name: 'lomo', plan, chosen: true }], ...more });

/** Tensors of a packed run, with the samples they are live at. */
function tensorsOf({ segments }: PageRun, texts: readonly string[]) {
  let first = 0;
  return segments.name.map((name, i) => {
    first += segments.first[i]!;
    return { name: texts[name]!, category: categories[segments.category[i]!]!, bytes: segments.units[i]! * alignment, first, end: first + segments.count[i]! };
  });
}

test.each([['lomo, recomputed', lomo, false, 1], ['lomo, kept, 3 micro-batches', lomo, true, 3], ['adamw', adamw(), false, 1]] as const)('%s: every sample holds the bytes of its moment, category by category, and the peak is among them', async (_, rule, keeps, microBatches) => {
  const plan = await planOf(rule, { keeps, microBatches });
  const { texts, runs } = dataOf(pageOf(plan));
  const run = runs[0]!;
  const tensors = tensorsOf(run, texts);
  // What the arena held after every event, to be found again at the samples, in order.
  const curve: string[] = [];
  plan.timeline.curve((_e, live) => curve.push([...live].join()));
  let from = 0;
  run.samples.x.forEach((x, s) => {
    const live = categories.map((category) => tensors.filter((t) => t.category === category && t.first <= s && s < t.end).reduce((sum, { bytes }) => sum + bytes, 0));
    const at = curve.indexOf(live.join(), from);
    expect(at, `sample ${s}`).toBeGreaterThanOrEqual(0);
    from = at;
    expect(x).toBeLessThan(stretches);
    if (s > 0) expect(x).toBeGreaterThan(run.samples.x[s - 1]!);
  });
  const { event, blocks } = peakOf(plan);
  const atPeak = tensors.filter((t) => t.first <= run.peakSample && run.peakSample < t.end);
  expect(atPeak.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(plan.peak);
  expect(atPeak.map(({ bytes, category }) => `${category} ${bytes}`).toSorted()).toEqual(blocks.map(({ bytes, category }) => `${category} ${bytes}`).toSorted());
  expect([texts[run.samples.place[run.peakSample]!], texts[run.samples.event[run.peakSample]!]]).toEqual([placeWords(event.place), `allocated: ${blockWords(event.block)}`]);
  expect([run.extent, run.peak, run.flops, run.launches]).toEqual([plan.extent, plan.peak, plan.flops.get('step'), plan.launches.get('step')]);
});

test('the page asks for nothing from anywhere, and runs nothing but its own script', async () => {
  const page = pageOf(await planOf(lomo));
  const outside = page.replace(dataTextOf(page), '').replace(pageScript, '');
  expect(outside).not.toMatch(/https?:|\bsrc\s*=|\bhref\s*=|url\(|@import|<link|<img|<iframe| on\w+=/i);
  expect(pageScript).not.toMatch(/https?:|\bfetch\b|XMLHttpRequest|import\(|WebSocket|innerHTML|insertAdjacent|document\.write|\beval\b/);
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)![1]!;
  const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
  expect(policy).toBe(`default-src 'none'; base-uri 'none'; form-action 'none'; style-src ${hash(/<style>(.*?)<\/style>/s.exec(page)![1]!)}; script-src ${hash(pageScript)}`);
  expect(page).toContain(`<script>${pageScript}</script>`);
  expect(page).not.toMatch(/ style="/);
});

test('names that would be markup stay text', async () => {
  const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(1)> & "quoted" 'twice' <!-- \u2028 ]]>`;
  const page = pageOf(await planOf(lomo, { name: hostile }), { title: hostile, facts: [hostile], runs: [{ name: hostile, plan: await planOf(lomo, { name: hostile }), chosen: true }] });
  expect(page.match(/<script/g)).toHaveLength(2);
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  expect(page).not.toMatch(/<img|<!--/);
  const { texts, runs } = dataOf(page);
  expect(texts.filter((text) => text === hostile)).toHaveLength(1);
  expect(runs[0]!.name).toBe(hostile);
  expect(page).toContain('<h1>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; &amp; &quot;quoted&quot; &#39;twice&#39; &lt;!-- \u2028 ]]&gt;</h1>');
});

test('in a browser: the peak is explained, the tensor under the cursor named, another run a click away', async () => {
  const [plan, other] = [await planOf(lomo), await planOf(adamw())];
  const page = pageOf(plan, { limit: { bytes: 2 ** 20, words: '1 MiB' }, runs: [{ name: 'adamw', plan: other, chosen: false }, { name: 'lomo', plan, chosen: true }] });
  const element = openPage(pageScript, dataTextOf(page));
  const { event, blocks } = peakOf(plan);
  expect(element('when').textContent).toBe('The peak');
  expect(element('words').text).toContain(`(${plan.peak.toLocaleString('en-US')} bytes) live in ${blocks.length} tensors`);
  expect(element('words').text).toContain(placeWords(event.place));
  expect(element('words').text).toContain(`Just allocated: ${blockWords(event.block)}.`);
  expect(element('categories').children).toHaveLength(categories.filter((c) => plan.atPeak[c] > 0).length);
  expect(element('runs').children.map(({ text }) => text.split(' | ')[0])).toEqual(['adamw', 'lomo (this run)']);
  // At the bottom of the stack lies the largest weight.
  element('over').send('pointermove', { clientX: 400, clientY: 421 });
  expect(element('tip').text).toMatch(/^model\.embed_tokens\.weight \| 188 KiB, weights \| live: .* in all \| just (allocated|freed|counted as)/);
  element('over').send('click', { clientX: 73, clientY: 400 });
  expect([element('when').textContent, element('back').hidden]).toEqual(['The moment chosen', false]);
  element('back').send('click');
  expect(element('when').textContent).toBe('The peak');
  element('runs').children[0]!.send('click');
  expect(element('words').text).toContain(`(${other.peak.toLocaleString('en-US')} bytes)`);
  element('moving').checked = true;
  element('moving').send('change');
  element('over').send('pointermove', { clientX: 400, clientY: 421 });
  expect(element('tip').text).not.toMatch(/, weights \||, state \|/);
});

test('a long step is sampled: the page does not grow with it, and its peak stays', async () => {
  const plan = await planOf(lomo, { microBatches: 64 });
  expect(plan.timeline.length).toBeGreaterThan(8000);
  const page = pageOf(plan);
  const run = dataOf(page).runs[0]!;
  expect(run.samples.x.length).toBeLessThanOrEqual(2 * stretches);
  expect(page.length).toBeLessThan(400_000);
  expect(tensorsOf(run, dataOf(page).texts).filter((t) => t.first <= run.peakSample && run.peakSample < t.end).reduce((sum, { bytes }) => sum + bytes, 0)).toBe(plan.peak);
});

test('lomo plan --html writes the plans that --json tells, the run itself first, and both say what the process will come to', async () => {
  const html = join(mkdtempSync(join(tmpdir(), 'lomo-page-')), 'plan.html');
  const written: string[] = [];
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  try {
    await planVerb(modelFolder(), { max_seq_length: 16, backend: 'reference', optim: 'adalomo' }, { json: true, html, device: '1 GiB' });
  } finally {
    spy.mockRestore();
  }
  const told = JSON.parse(written.join('')) as { optimizers: readonly { name: string; extent: number; peak: number }[]; process: { total: number; start: number } };
  const { runs } = dataOf(readFileSync(html, 'utf8'));
  expect(runs.map(({ name, extent, peak, chosen }) => ({ name: name.split(',')[0], extent, peak, chosen }))).toEqual(told.optimizers.map(({ name, extent, peak }, i) => ({ name, extent, peak, chosen: i === 0 })));
  expect(runs.map(({ name }) => name.split(',')[0])).toEqual(['adalomo', 'lomo', 'adamw', 'sgd']);
  expect(told.process.total).toBeGreaterThan(told.process.start + told.optimizers[0]!.extent);
});
