// A streaming line reader whose memory is bounded by the longest line it accepts; what cannot be read becomes a problem, never a guess.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { DataError } from '../errors.ts';

/** One line without its line end (LF or CRLF), numbered from 1; `problem` says why a line has no text. */
export type Line =
  | { readonly number: number; readonly text: string; readonly problem?: undefined }
  | { readonly number: number; readonly text?: undefined; readonly problem: string };

const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/**
 * Lines of a UTF-8 file. A byte order mark at the start is dropped. Longer lines than `maxBytes`, invalid UTF-8 and NUL bytes
 * come as problems. Throws DataError MissingFile where the file cannot be opened or read, or is a device.
 */
export async function* readLines(path: string, maxBytes: number): AsyncGenerator<Line, void, undefined> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let parts: Buffer[] = [];
  let bytes = 0;
  let number = 1;
  const add = (part: Buffer): void => {
    bytes += part.length;
    if (bytes > maxBytes) parts = [];
    else if (part.length > 0) parts.push(part);
  };
  const take = (): Line => {
    const line = bytes > maxBytes
      ? { number, problem: `the line has over ${maxBytes} bytes, expected at most that (raise maxRecordBytes)` }
      : decodeLine(parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts), number, decoder);
    parts = [];
    bytes = 0;
    number += 1;
    return line;
  };
  // A device may have no end. A pipe has one, and is how data may come from another program.
  const facts = await stat(path).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  if (facts.isCharacterDevice() || facts.isBlockDevice() || facts.isSocket()) throw new DataError('MissingFile', `${path}: is a device or a socket, expected a file`, { path });
  const stream = createReadStream(path, { highWaterMark: 256 * 1024 });
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      let from = 0;
      for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, from)) {
        add(chunk.subarray(from, end));
        yield take();
        from = end + 1;
      }
      add(chunk.subarray(from));
    }
  } catch (cause) {
    throw unreadable(path, cause);
  } finally {
    stream.destroy();
  }
  if (bytes > 0) yield take();
}

function decodeLine(raw: Buffer, number: number, decoder: { decode(bytes: Uint8Array): string }): Line {
  let line = raw;
  if (number === 1) {
    if (line.length >= 2 && ((line[0] === 0xff && line[1] === 0xfe) || (line[0] === 0xfe && line[1] === 0xff))) {
      return { number, problem: 'the file starts with a UTF-16 byte order mark, expected UTF-8 (convert it with iconv)' };
    }
    if (line.length >= 3 && line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf) line = line.subarray(3);
  }
  if (line.length > 0 && line[line.length - 1] === carriageReturn) line = line.subarray(0, line.length - 1);
  const nul = line.indexOf(0);
  if (nul >= 0) return { number, problem: `NUL byte at byte ${nul + 1} of the line, expected text` };
  try {
    return { number, text: decoder.decode(line) };
  } catch {
    return { number, problem: 'invalid UTF-8, expected UTF-8 text' };
  }
}

function unreadable(path: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !('code' in cause)) return cause;
  const why = cause.code === 'ENOENT' ? 'no such file' : cause.code === 'EISDIR' ? 'is a folder, expected a file' : cause.message;
  return new DataError('MissingFile', `${path}: ${why}`, { path, errno: cause.code }, cause);
}
