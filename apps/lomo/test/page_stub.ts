// As much of a browser as the plan's page needs, so that its script runs in a test: elements that keep text, a canvas that draws nothing.
import { createContext, Script } from 'node:vm';

/** An element of the stub. */
export class StubElement {
  id = '';
  textContent = '';
  hidden = false;
  checked = false;
  clientWidth = 1082;
  clientHeight = 472;
  offsetWidth = 200;
  offsetHeight = 80;
  children: StubElement[] = [];
  readonly style: Record<string, string> = {};
  readonly dataset: Record<string, string> = {};
  private readonly listeners = new Map<string, (event: object) => void>();

  append(...more: readonly StubElement[]): void {
    this.children.push(...more);
  }

  replaceChildren(...more: readonly StubElement[]): void {
    this.children = [...more];
  }

  setAttribute(name: string, value: string): void {
    this.dataset[name] = value;
  }

  addEventListener(kind: string, listener: (event: object) => void): void {
    this.listeners.set(kind, listener);
  }

  getBoundingClientRect(): { readonly left: number; readonly top: number } {
    return { left: 0, top: 0 };
  }

  getContext(): object {
    return new Proxy({}, { get: (_, name) => (name === 'measureText' ? () => ({ width: 40 }) : () => {}), set: () => true });
  }

  /** Does what a user would. */
  send(kind: string, event: object = {}): void {
    this.listeners.get(kind)!({ preventDefault: () => {}, ...event });
  }

  /** All text inside, in order. */
  get text(): string {
    return [this.textContent, ...this.children.map(({ text }) => text)].filter((part) => part !== '').join(' | ');
  }
}

/** Runs `script` over `data` as a page would; returns its elements by id. */
export function openPage(script: string, data: string): (id: string) => StubElement {
  const byId = new Map<string, StubElement>();
  const element = (id: string): StubElement => {
    let found = byId.get(id);
    if (found === undefined) byId.set(id, (found = new StubElement()));
    return found;
  };
  element('data').textContent = data;
  const made = (textContent: string): StubElement => Object.assign(new StubElement(), { textContent });
  const document = { getElementById: element, createElement: () => new StubElement(), createTextNode: made, querySelectorAll: () => [], documentElement: {} };
  const window = { devicePixelRatio: 1, addEventListener: () => {}, matchMedia: () => ({ addEventListener: () => {} }) };
  new Script(script).runInContext(createContext({ document, window, getComputedStyle: () => ({ getPropertyValue: () => '#000' }) }));
  return element;
}
