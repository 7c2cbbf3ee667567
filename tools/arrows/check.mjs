// Checks a whole workspace against the arrows and the house rules; reads files, prints nothing.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { arrows, backends, dynamicArrows, height, lines } from './rules.mjs';
import { allowancesOf, findingsOf, importsOf, isEmptyName, parse } from './source.mjs';

const skipped = new Set(['node_modules', 'dist', 'build', '.turbo', '.git', '.cache', 'runs', '.venv']);
const counted = /\.(ts|mts|mjs|js|c|cc|cpp|h|hpp|cu|cuh)$/;

function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (skipped.has(entry.name) || entry.name.startsWith('scratch-') || entry.name.endsWith('.gen.ts')) return [];
    return entry.isDirectory() ? filesUnder(join(folder, entry.name)) : [join(folder, entry.name)];
  });
}

function packagesOf(root) {
  const folders = ['packages', 'apps', 'examples'].flatMap((parent) => (existsSync(join(root, parent)) ? readdirSync(join(root, parent)).map((name) => join(root, parent, name)) : []));
  return folders.filter((folder) => existsSync(join(folder, 'package.json')))
    .map((folder) => ({ folder, kind: relative(root, folder).split(sep)[0], manifest: JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) }));
}

/**
 * Runs every check on the workspace at `root`.
 * @param {string} root
 * @returns {{ failures: string[], warnings: string[], allowances: string[], files: number }} lines of text, and how many files were read
 */
export function checkWorkspace(root) {
  /** @type {ReturnType<typeof checkWorkspace>} */
  const report = { failures: [], warnings: [], allowances: [], files: 0 };
  const members = packagesOf(root);
  const byName = new Map(members.map((one) => [one.manifest.name, one]));
  for (const member of members) {
    checkManifest(member, byName, report, root);
    for (const path of filesUnder(member.folder)) if (/\.m?ts$/.test(path)) checkSource(member, path, byName, report, root);
  }
  checkCycles(members, byName, report);
  for (const parent of ['packages', 'apps', 'examples', 'bench', 'tools']) for (const path of filesUnder(join(root, parent))) checkFile(path, report, root);
  return report;
}

const own = (name, byName) => byName.has(name) || name.startsWith('@lomo/');

function checkManifest({ folder, kind, manifest }, byName, report, root) {
  const at = `${relative(root, folder)}/package.json`;
  const { name } = manifest;
  if (kind !== 'examples' && arrows[name] === undefined) report.failures.push(`${at}: ${name} is not in tools/arrows/rules.mjs: say there what it may import`);
  const allowed = kind === 'examples' ? null : [...(arrows[name] ?? []), ...(dynamicArrows[name] ?? [])];
  for (const section of ['dependencies', 'peerDependencies', 'optionalDependencies']) {
    for (const other of Object.keys(manifest[section] ?? {})) {
      if (own(other, byName) && allowed !== null && !allowed.includes(other)) report.failures.push(`${at}: ${name} must not depend on ${other} (${section})`);
    }
  }
  for (const other of Object.keys(manifest.devDependencies ?? {})) {
    if (!own(other, byName) || kind === 'examples') continue;
    if ((height[other] ?? 9) > (height[name] ?? 9)) report.failures.push(`${at}: ${name} must not depend on the higher ${other}, not even for tests`);
    if (kind === 'packages' && backends.includes(other)) report.failures.push(`${at}: ${name} must not depend on the backend ${other}, not even for tests: it builds and tests without a compiler`);
  }
}

function checkCycles(members, byName, report) {
  const edges = ({ manifest }) => ['dependencies', 'devDependencies', 'peerDependencies', 'optionalDependencies'].flatMap((section) => Object.keys(manifest[section] ?? {})).filter((name) => byName.has(name));
  // Each circle is walked from its first name in the alphabet only, so that it is reported once.
  const walk = (first, path) => {
    for (const next of edges(byName.get(path.at(-1)))) {
      if (next === first) report.failures.push(`packages depend on each other in a circle: ${[...path, first].join(' -> ')}`);
      else if (next > first && !path.includes(next)) walk(first, [...path, next]);
    }
  };
  for (const { manifest } of members) walk(manifest.name, [manifest.name]);
  report.failures = [...new Set(report.failures)];
}

function checkSource({ folder, kind, manifest }, path, byName, report, root) {
  const text = readFileSync(path, 'utf8');
  const source = parse(path, text);
  const at = relative(root, path);
  const inside = relative(folder, path).split(sep);
  const isSource = inside[0] === 'src' || inside[0] === 'conformance';
  const production = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies, ...manifest.optionalDependencies });
  const declared = isSource ? production : [...production, ...Object.keys(manifest.devDependencies ?? {})];
  for (const { specifier, kind: how, line } of importsOf(source)) {
    const fail = (message) => report.failures.push(`${at}:${line}: ${message}`);
    if (specifier.startsWith('node:')) continue;
    if (specifier.startsWith('.')) {
      const target = relative(folder, resolve(dirname(path), specifier));
      const allowedOutside = !isSource && (/^\.\.[\\/]\.\.[\\/](tools[\\/]|vitest\.shared)/.test(target));
      if (target.startsWith('..') && !allowedOutside) fail(`'${specifier}' leaves the package: import it by name`);
      else if (isSource && !target.startsWith('src') && !target.startsWith('conformance')) fail(`'${specifier}' leaves src`);
      continue;
    }
    const name = specifier.split('/').slice(0, specifier.startsWith('@') ? 2 : 1).join('/');
    if (name === manifest.name) {
      if (inside[0] === 'src') fail(`imports its own package by name: use a relative path`);
      continue;
    }
    if (!declared.includes(name)) fail(`imports '${name}', which ${isSource ? 'dependencies' : 'package.json'} of ${manifest.name} does not declare`);
    const other = byName.get(name);
    const subpath = `.${specifier.slice(name.length)}`;
    if (other !== undefined && other.manifest.exports?.[subpath] === undefined) fail(`'${specifier}' reaches into ${name}, which exports no '${subpath}'`);
    if (isSource && kind !== 'examples' && own(name, byName) && !(arrows[manifest.name] ?? []).includes(name)) {
      if (!(dynamicArrows[manifest.name] ?? []).includes(name)) fail(`${manifest.name} must not import ${name}`);
      else if (how !== 'dynamic') fail(`${manifest.name} may load ${name} only by import(), so that it can be absent`);
    }
  }
  if (!isSource) return;
  const where = { environment: kind === 'packages', ranks: manifest.name !== '@lomo/parallel' && kind !== 'examples' };
  for (const { rule, line, message } of findingsOf(source, where)) report.failures.push(`${at}:${line}: ${message} [${rule}]`);
  for (const { rule, line, reason } of allowancesOf(source)) report.allowances.push(`${at}:${line}: ${rule}: ${reason}`);
}

function checkFile(path, report, root) {
  const at = relative(root, path);
  if (!counted.test(path)) return;
  report.files++;
  if (at.split(sep).some(isEmptyName)) report.failures.push(`${at}: the name says nothing about what it is for`);
  const text = readFileSync(path, 'utf8');
  const count = text.split('\n').length - (text.endsWith('\n') ? 1 : 0);
  if (count > lines.fail) report.failures.push(`${at}: ${count} lines; the budget is ${lines.warn}, the limit ${lines.fail}: split it`);
  else if (count > lines.warn) report.warnings.push(`${at}: ${count} lines; the budget is ${lines.warn}`);
}
