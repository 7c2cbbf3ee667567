// What a run is doing just now and about how long that takes: what a person is told who asks it to stop.
import type { FitEvent, FitPhase } from '@lomo/trainer';
import { shortTime } from '@lomo/trainer';

export class Progress {
  private phase: FitPhase = 'step';
  private step = 1;
  private begun = performance.now();
  /** Milliseconds of the last step and the last save; null before the first. */
  private stepTook: number | null = null;
  private saveTook: number | null = null;

  /** Called as a phase begins. */
  enter(phase: FitPhase, step: number): void {
    this.phase = phase;
    this.step = step;
    this.begun = performance.now();
  }

  /** Called with every event. */
  note(event: FitEvent): void {
    if (event.kind === 'step') this.stepTook = event.milliseconds;
    if (event.kind === 'saved') this.saveTook = event.milliseconds;
  }

  /** 'step 12 is given up if no weight has changed yet, else finished, about 38 s; then ...' */
  get stopping(): string {
    const since = performance.now() - this.begun;
    const left = (took: number | null): string => (took === null || took <= since ? '' : `, about ${shortTime((took - since) / 1000)}`);
    const save = `the last whole step is saved${this.saveTook === null ? '' : `, about ${shortTime(this.saveTook / 1000)}`}`;
    const first = {
      step: `step ${this.step} is given up if no weight has changed yet, else finished${left(this.stepTook)}; then ${save}`,
      evaluation: `the evaluation is given up, ${save}`,
      save: `the save is finished${left(this.saveTook)}`,
    }[this.phase];
    return `stopping: ${first}; once more to stop at once`;
  }
}
