// Reads one request a line, {n, call, args}, makes it, and writes {n, value} or {n, error}; any number at a time.
import { createInterface } from "node:readline";
import { connect } from "./regrow.mjs";

const client = connect(process.argv[2], JSON.parse(process.argv[3] ?? "{}"));
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const calls = {
  ask: (...args) => client.ask(...args),
  tell: async (...args) => { await client.tell(...args); return null; },
  describe: (...args) => client.describe(...args),
  ping: () => client.ping(),
  welcome: () => client.welcome(),
  // the program is busy with something else, and reads nothing
  block: async (ms) => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms); return ms; },
  stream: async (to, method, args, { take = Infinity, ...options }) => {
    const parts = [];
    if (take === 0) return parts;
    for await (const part of client.stream(to, method, args, options)) if (parts.push(part) >= take) break;
    return parts;
  },
};
const told = ({ name, message, code, started, retryable, retryAfterMs, actor, details, crashId }) =>
  ({ kind: name, message, code, started, retryable, retryAfterMs, actor, details, crashId });
for await (const line of createInterface({ input: process.stdin })) {
  const { n, call, args } = JSON.parse(line);
  calls[call](...args).then((value) => say({ n, value: value ?? null }), (error) => say({ n, error: told(error) }));
}
client.close();
