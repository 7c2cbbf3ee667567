// What the page of `lomo plan --html` does in a browser: plain JavaScript as text, for no build step knows browsers here. It puts words into the page as text only.

/** Expects the elements of plan_page.ts, and the data of plan_page_data.ts in #data. */
export const pageScript = String.raw`'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const byId = (id) => document.getElementById(id);
  const parts = ['forward', 'recompute', 'backward', 'settle'];
  const still = ['weights', 'state'];
  const order = data.order.map((name) => data.categories.indexOf(name));
  const canvas = byId('chart'), over = byId('over');
  let run = null, chosen = 0, pinned = 0, hovered = null, box = null;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className !== undefined) made.className = className;
    return made;
  };
  const size = (bytes) => {
    const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
    let u = 0;
    while (Math.abs(bytes) >= 999.5 && u < 4) { bytes /= 1024; u++; }
    return (u === 0 ? String(bytes) : bytes.toPrecision(3)) + ' ' + units[u];
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hue = (category) => colour('--' + data.categories[category]);
  const percent = (share) => (100 * share).toFixed(1) + ' %';

  // Segments with their places, and the bytes of every category at every sample.
  const decode = (packed) => {
    const count = packed.samples.x.length, width = data.categories.length;
    const live = new Float64Array(count * width), totals = new Float64Array(count), segments = [];
    let first = 0;
    packed.segments.name.forEach((name, i) => {
      first += packed.segments.first[i];
      const segment = { name: data.texts[name], category: packed.segments.category[i], bytes: packed.segments.units[i] * data.unit, first, end: first + packed.segments.count[i] };
      for (let s = segment.first; s < segment.end; s++) { live[s * width + segment.category] += segment.bytes; totals[s] += segment.bytes; }
      segments.push(segment);
    });
    return { ...packed, count, live, totals, segments };
  };
  const decoded = [];
  const runAt = (index) => decoded[index] ??= decode(data.runs[index]);
  const bytesOf = (of, sample, category) => of.live[sample * data.categories.length + category];
  const shown = () => order.filter((c) => !(byId('moving').checked && still.includes(data.categories[c])));
  const heightAt = (of, sample) => shown().reduce((sum, c) => sum + bytesOf(of, sample, c), 0);
  const highest = (of) => { let most = 0; for (let s = 0; s < of.count; s++) most = Math.max(most, heightAt(of, s)); return most; };
  const at = (sample) => run.segments.filter((s) => s.first <= sample && sample < s.end).sort((a, b) => b.bytes - a.bytes);

  const niceStep = (least) => {
    const power = 2 ** Math.floor(Math.log2(least));
    return power >= least ? power : 2 * power;
  };
  const layOut = () => {
    const ratio = window.devicePixelRatio || 1;
    for (const c of [canvas, over]) {
      c.width = Math.round(canvas.clientWidth * ratio);
      c.height = Math.round(canvas.clientHeight * ratio);
      c.getContext('2d').setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    const most = byId('same').checked ? Math.max(...data.runs.map((_, i) => highest(runAt(i)))) : highest(run);
    box = { ratio, left: 72, right: 12, top: 22, bottom: 50, width: canvas.clientWidth, height: canvas.clientHeight, most: Math.max(most * 1.04, 1) };
  };
  const xOf = (stretch) => box.left + (box.width - box.left - box.right) * stretch / data.stretches;
  const yOf = (bytes) => box.height - box.bottom - (box.height - box.top - box.bottom) * bytes / box.most;
  // On whole pixels, so that no seam shows between neighbours; at least one wide.
  const snapped = (x) => Math.round(x * box.ratio) / box.ratio;
  const spanOf = (sample) => {
    const left = snapped(xOf(run.samples.x[sample])), right = snapped(xOf(sample + 1 < run.count ? run.samples.x[sample + 1] : data.stretches));
    return [left, Math.max(right, left + 1 / box.ratio)];
  };

  const draw = () => {
    layOut();
    const pen = canvas.getContext('2d');
    pen.clearRect(0, 0, box.width, box.height);
    pen.font = '12px system-ui, sans-serif';
    const [ink, faint] = [colour('--ink'), colour('--line')];
    const step = niceStep(box.most / 9);
    pen.textBaseline = 'middle';
    for (let bytes = 0; bytes <= box.most; bytes += step) {
      pen.fillStyle = faint;
      pen.fillRect(box.left, Math.round(yOf(bytes)), box.width - box.left - box.right, 1);
      pen.fillStyle = ink;
      pen.textAlign = 'right';
      pen.fillText(bytes === 0 ? '0' : size(bytes), box.left - 8, yOf(bytes));
    }
    const bottoms = new Float64Array(run.count);
    for (const category of shown()) {
      pen.fillStyle = hue(category);
      for (let s = 0; s < run.count; s++) {
        const bytes = bytesOf(run, s, category);
        if (bytes === 0) continue;
        const [left, right] = spanOf(s);
        const [low, high] = [yOf(bottoms[s]), yOf(bottoms[s] + bytes)];
        pen.fillRect(left, high, right - left, low - high);
        bottoms[s] += bytes;
      }
    }
    const line = (bytes, text) => {
      if (bytes > box.most) return;
      pen.strokeStyle = ink;
      pen.setLineDash([5, 4]);
      pen.beginPath(); pen.moveTo(box.left, yOf(bytes)); pen.lineTo(box.width - box.right, yOf(bytes)); pen.stroke();
      pen.setLineDash([]);
      pen.fillStyle = ink;
      pen.textAlign = 'left';
      pen.fillText(text, box.left + 6, yOf(bytes) - 9);
    };
    if (data.limit !== null && !byId('moving').checked) line(data.limit.bytes, data.limit.words);
    drawParts(pen, ink);
    drawOver();
  };

  // What the program is doing, under the time axis: forward, recompute, backward, what settles; and where phases and passes begin.
  const drawParts = (pen, ink) => {
    const top = box.height - box.bottom + 4;
    for (let s = 0; s < run.count; s++) {
      const part = run.samples.part[s];
      if (part === 4) continue;
      const [left, right] = spanOf(s);
      pen.fillStyle = colour('--part' + part);
      pen.fillRect(left, top, right - left, 10);
    }
    let before = -1, free = 0;
    pen.textAlign = 'left';
    pen.fillStyle = ink;
    for (let s = 0; s < run.count; s++) {
      if (run.samples.pass[s] === before) continue;
      before = run.samples.pass[s];
      const [left] = spanOf(s);
      const name = data.texts[before], wide = pen.measureText(name).width;
      pen.fillRect(left, top - 4, 1, 26);
      const start = Math.min(left + 5, box.width - wide - 2);
      // Where there is no room for a name, the place under the cursor still says it.
      if (start < free) continue;
      pen.fillText(name, start, top + 21);
      free = start + wide + 9;
    }
  };

  const drawOver = () => {
    const pen = over.getContext('2d');
    pen.clearRect(0, 0, box.width, box.height);
    const ink = colour('--ink');
    const mark = (sample, dashed) => {
      const [left, right] = spanOf(sample);
      pen.strokeStyle = ink;
      pen.lineWidth = 1;
      pen.setLineDash(dashed ? [2, 3] : []);
      pen.beginPath(); pen.moveTo((left + right) / 2, box.top); pen.lineTo((left + right) / 2, box.height - box.bottom); pen.stroke();
      pen.setLineDash([]);
    };
    mark(pinned, true);
    // The peak is marked wherever the cursor is.
    const [left, right] = spanOf(run.peakSample);
    const [x, y] = [(left + right) / 2, yOf(heightAt(run, run.peakSample))];
    pen.fillStyle = ink;
    pen.beginPath(); pen.moveTo(x, y - 1); pen.lineTo(x - 5, y - 9); pen.lineTo(x + 5, y - 9); pen.fill();
    pen.font = '600 12px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    const label = 'peak ' + size(run.peak), room = x + 10 + pen.measureText(label).width < box.width;
    pen.textAlign = room ? 'left' : 'right';
    pen.fillText(label, room ? x + 9 : x - 9, y - 8);
    if (hovered === null) return;
    mark(hovered.sample, false);
    if (hovered.from === undefined) return;
    const [l, r] = [spanOf(hovered.segment.first)[0], spanOf(hovered.segment.end - 1)[1]];
    pen.fillStyle = ink;
    // How long the tensor lives, and where it is in the stack now.
    pen.fillRect(l, yOf(hovered.from) - 1, r - l, 1);
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    const [hl, hr] = spanOf(hovered.sample);
    pen.strokeRect(hl - 2, yOf(hovered.to), hr - hl + 4, Math.max(2, yOf(hovered.from) - yOf(hovered.to)));
  };

  // The sample under x, and the tensor of the stack at that height.
  const find = (x, y) => {
    const stretch = (x - box.left) / (box.width - box.left - box.right) * data.stretches;
    let low = 0, high = run.count - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (run.samples.x[middle] <= stretch) low = middle; else high = middle - 1; }
    const bytes = (box.height - box.bottom - y) / (box.height - box.top - box.bottom) * box.most;
    const live = at(low);
    let bottom = 0;
    for (const category of shown()) for (const segment of live) {
      if (segment.category !== category) continue;
      if (bytes >= bottom && bytes < bottom + segment.bytes) return { sample: low, segment, from: bottom, to: bottom + segment.bytes };
      bottom += segment.bytes;
    }
    return { sample: low };
  };

  const hover = (x, y) => {
    hovered = find(x, y);
    const { sample, segment } = hovered;
    const tip = byId('tip');
    tip.replaceChildren();
    if (segment !== undefined) {
      const head = element('div', undefined, 'tensor');
      const swatch = element('i', undefined, 'swatch');
      swatch.style.background = hue(segment.category);
      head.append(swatch, element('b', segment.name));
      tip.append(head, element('div', size(segment.bytes) + ', ' + data.categories[segment.category]));
    }
    tip.append(element('div', 'live: ' + size(run.totals[sample]) + ' in all'), element('div', 'just ' + data.texts[run.samples.event[sample]], 'faint'), element('div', data.texts[run.samples.place[sample]], 'faint'));
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(4, x + 18 + width > box.width ? x - width - 14 : x + 18) + 'px';
    tip.style.top = Math.max(4, Math.min(y + 14, box.height - height - 4)) + 'px';
    drawOver();
  };
  const leave = () => { hovered = null; byId('tip').hidden = true; drawOver(); };

  // The moment in words: what asked, where, bytes by category, the largest tensors.
  const explain = () => {
    const sample = pinned, isPeak = sample === run.peakSample, live = at(sample);
    byId('when').textContent = isPeak ? 'The peak' : 'The moment chosen';
    byId('back').hidden = isPeak;
    const share = (run.samples.x[sample] / data.stretches * 100).toFixed(0);
    byId('words').replaceChildren(
      element('p', size(run.totals[sample]) + ' (' + run.totals[sample].toLocaleString('en-US') + ' bytes) live in ' + live.length + ' tensors' + (isPeak ? '; the arena is ' + size(run.extent) + ', gaps between tensors included.' : '.')),
      element('p', 'Where: ' + data.texts[run.samples.place[sample]] + ', after ' + share + ' % of the work.'),
      element('p', 'Just ' + data.texts[run.samples.event[sample]] + '.'),
    );
    const rows = (list, make) => list.map((entry) => { const row = element('tr'); row.append(...make(entry)); return row; });
    const named = (category, name) => {
      const cell = element('td');
      const swatch = element('i', undefined, 'swatch');
      swatch.style.background = hue(category);
      cell.append(swatch, document.createTextNode(name));
      return cell;
    };
    const used = order.filter((c) => bytesOf(run, sample, c) > 0).reverse();
    byId('categories').replaceChildren(...rows(used, (c) => [named(c, data.categories[c]), element('td', size(bytesOf(run, sample, c)), 'number'), element('td', percent(bytesOf(run, sample, c) / run.totals[sample]), 'number')]));
    const kept = live.filter((s) => still.includes(data.categories[s.category]));
    const moving = live.filter((s) => !still.includes(data.categories[s.category]));
    const few = [...moving.slice(0, 12), ...kept.slice(0, 3)].sort((a, b) => b.bytes - a.bytes);
    byId('tensors').replaceChildren(...rows(few, (s) => [named(s.category, s.name), element('td', data.categories[s.category]), element('td', size(s.bytes), 'number')]));
    byId('others').textContent = moving.length > 12 || kept.length > 3 ? 'The largest of weights and state, and of all others; ' + (live.length - few.length) + ' more are smaller.' : '';
  };

  const select = (index) => {
    chosen = index;
    run = runAt(index);
    pinned = run.peakSample;
    [...byId('runs').children].forEach((button, i) => button.setAttribute('aria-pressed', String(i === index)));
    const [flops, unit] = run.flops >= 1e12 ? [run.flops / 1e12, ' TFLOP'] : [run.flops / 1e9, ' GFLOP'];
    byId('facts').textContent = 'reserved ' + size(run.extent) + ', peak ' + size(run.peak) + ', ' + flops.toLocaleString('en-US', { maximumSignificantDigits: 3 }) + unit + ' and ' + run.launches.toLocaleString('en-US') + ' launches a step';
    hovered = null;
    byId('tip').hidden = true;
    draw();
    explain();
  };

  // One button a run: its name, what it reserves, and its peak by category on the scale of the largest.
  const most = Math.max(...data.runs.map(({ extent }) => extent));
  data.runs.forEach((packed, index) => {
    const button = element('button');
    button.type = 'button';
    const bar = element('span', undefined, 'bar');
    const of = runAt(index);
    for (const category of order) {
      const bytes = bytesOf(of, of.peakSample, category);
      if (bytes === 0) continue;
      const piece = element('i');
      piece.style.width = 100 * bytes / most + '%';
      piece.dataset.category = String(category);
      bar.append(piece);
    }
    button.append(element('span', packed.name + (packed.chosen ? ' (this run)' : ''), 'name'), element('span', size(packed.extent), 'number'), bar);
    button.addEventListener('click', () => select(index));
    byId('runs').append(button);
  });
  const paint = () => { for (const piece of document.querySelectorAll('.bar i, #legend i')) piece.style.background = hue(Number(piece.dataset.category)); };
  const met = order.filter((c) => data.runs.some((_, i) => runAt(i).segments.some((s) => s.category === c)));
  byId('legend').replaceChildren(...met.map((c) => { const item = element('span'); const swatch = element('i', undefined, 'swatch'); swatch.dataset.category = String(c); item.append(swatch, document.createTextNode(data.categories[c])); return item; }));
  byId('partlegend').replaceChildren(...parts.map((name, i) => { const item = element('span'); item.append(element('i', undefined, 'swatch part' + i), document.createTextNode(name)); return item; }));

  const place = (event) => { const from = over.getBoundingClientRect(); return [event.clientX - from.left, event.clientY - from.top]; };
  const pin = (sample) => { pinned = Math.max(0, Math.min(run.count - 1, sample)); drawOver(); explain(); };
  over.addEventListener('pointermove', (event) => hover(...place(event)));
  over.addEventListener('pointerleave', leave);
  over.addEventListener('click', (event) => pin(find(...place(event)).sample));
  over.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -25, PageDown: 25 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    pin(pinned + by);
  });
  byId('back').addEventListener('click', () => pin(run.peakSample));
  for (const id of ['moving', 'same']) byId(id).addEventListener('change', () => { leave(); draw(); });
  window.addEventListener('resize', draw);
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { paint(); draw(); explain(); });
  paint();
  select(Math.max(0, data.runs.findIndex((r) => r.chosen)));
})();
`;
