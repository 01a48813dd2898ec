// Reads cases from standard input (a 32-bit length in network order, then the bytes) and writes one line of JSON for
// each: what llhttp, the parser of Node, makes of it in its strict mode. It is given byte after byte, so that the byte
// with which a message ends is known.
'use strict';

const { HTTPParser, allMethods } = process.binding('http_parser');

const MAX_HEAD_BYTES = 64 * 1024;

function read(bytes) {
  const message = { method: '', target: '', fields: [], body: '' };
  let length = null;
  let headed = false;
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {}, MAX_HEAD_BYTES, HTTPParser.kLenientNone);
  // Fields come in parts when there are many; those behind the head are trailers.
  parser[HTTPParser.kOnHeaders] = (fields, target) => {
    if (!headed) {
      message.fields.push(...fields);
      message.target += target;
    }
  };
  parser[HTTPParser.kOnHeadersComplete] = (major, minor, fields, method, target) => {
    headed = true;
    message.fields.push(...(fields ?? []));
    message.target += target ?? '';
    message.method = allMethods[method];
    return 0;
  };
  parser[HTTPParser.kOnBody] = (part) => { message.body += part.toString('latin1'); };
  parser[HTTPParser.kOnMessageComplete] = () => { length = at + 1; };
  let at = 0;
  for (; at < bytes.length && length === null; at += 1) {
    const taken = parser.execute(bytes.subarray(at, at + 1));
    if (taken !== 1 && length === null) {
      // With an upgrade asked for, Node says only that it took nothing.
      return { refused: taken instanceof Error ? `${taken.code}: ${taken.reason}` : 'nothing was taken' };
    }
  }
  parser.close();
  return length === null ? { incomplete: true } : { ...message, length };
}

const { readFileSync } = require('fs');
const input = readFileSync(0);
const lines = [];
for (let at = 0; at < input.length;) {
  const start = at + 4;
  at = start + input.readUInt32BE(at);
  lines.push(JSON.stringify(read(input.subarray(start, at))));
}
process.stdout.write(`${lines.join('\n')}\n`);
