// Types of headers.mjs, for tests.

export interface Interface {
  readonly name: string;
  readonly api: string;
  readonly scope: string;
  readonly header: string;
}
export declare const interfaces: readonly Interface[];
export declare function headersFolder(env?: NodeJS.ProcessEnv): string;
export declare function findHeader(header: string, env?: NodeJS.ProcessEnv): string | null;
export declare function compare(one: Interface, env?: NodeJS.ProcessEnv): { readonly complaints: string; readonly entries: number };
