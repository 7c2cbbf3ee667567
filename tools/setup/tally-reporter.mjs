// A vitest reporter that writes one JSON file: counts, every failure with its message, every skipped case with its reason.
// The path comes from LOMO_TALLY. Cases skipped by `test.skipIf` carry no reason of their own: the title has to say it, in brackets.
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';

const first = (errors) => (errors ?? []).map((error) => `${error.message ?? String(error)}\n${(error.stacks ?? []).slice(0, 3).map((at) => `    ${at.file}:${at.line}`).join('\n')}`).join('\n');

// The tests of a group whose beforeAll threw are reported as skipped; the group itself is the failure.
function isOrphan(test) {
  for (let group = test.parent; group.type === 'suite'; group = group.parent) if (group.errors().length > 0) return true;
  return false;
}

const reasonOf = (test, result) => (isOrphan(test) ? 'the set-up of its group failed' : result.note ?? /[([]([^()[\]]+)[)\]]/.exec(test.fullName)?.[1] ?? null);

export class TallyReporter {
  onTestRunEnd(modules, unhandled) {
    const tally = { passed: 0, failures: [], skips: [], slow: [] };
    for (const module of modules) {
      const file = relative(process.cwd(), module.moduleId);
      for (const error of module.errors()) tally.failures.push({ name: file, message: first([error]) });
      for (const suite of module.children.allSuites()) for (const error of suite.errors()) tally.failures.push({ name: `${file} > ${suite.fullName}`, message: first([error]) });
      for (const test of module.children.allTests()) {
        const result = test.result();
        const name = `${file} > ${test.fullName}`;
        if (result.state === 'passed') tally.passed++;
        else if (result.state === 'failed') tally.failures.push({ name, message: first(result.errors) });
        else tally.skips.push({ name, reason: reasonOf(test, result) });
        const duration = test.diagnostic()?.duration ?? 0;
        if (duration > 5000) tally.slow.push({ name, seconds: duration / 1000 });
      }
    }
    for (const error of unhandled) tally.failures.push({ name: 'outside any test', message: first([error]) });
    writeFileSync(process.env.LOMO_TALLY, JSON.stringify(tally));
  }
}
export { TallyReporter as default };
