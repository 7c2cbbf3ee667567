// Preloaded by opened.test.ts into a process: at its end, writes the shared libraries it has open into the file LOMO_OPENED_FILE.
import { appendFileSync } from 'node:fs';

process.on('exit', () => {
  const { sharedObjects } = process.report.getReport();
  appendFileSync(process.env.LOMO_OPENED_FILE, `${sharedObjects.join('\n')}\n`);
});
