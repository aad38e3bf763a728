// A client of the regrow daemon (PROTOCOL.md); one connection carries any number of requests at once.
//   const client = connect("tcp://127.0.0.1:5757");
//   await client.ask("greeter", "greet", { name: "Ada" }, { timeoutMs: 500 });
//   for await (const row of client.stream("db", "export", { table: "users" })) console.log(row);
// A request fails with a RegrowError: Refused (never started, repeat it after retryAfterMs), Invalid (change it) or
// Failed (may have happened, `started` says what is known). With `idem` a request whose connection broke is sent again
// to the same incarnation of the daemon, which then answers from memory.
import { Dealer } from "zeromq";

const GRACE_MS = 1000, CONTROL_MS = 10_000, MAX_TIMER_MS = 2 ** 31 - 1;
const REFUSED = ["overloaded", "rate_limited", "circuit_open", "unavailable", "draining"];
const INVALID = ["bad_request", "not_found", "invalid_arguments", "unauthorized", "forbidden", "conflict", "too_large"];

export class RegrowError extends Error {
  constructor({ message, crash_id: crashId, retry_after_ms: retryAfterMs, ...rest }) {
    super(message);
    const unknown = { started: "unknown", retryable: "unknown", details: {} };
    Object.assign(this, unknown, rest, { name: new.target.name, crashId, retryAfterMs });
  }
}
export class Refused extends RegrowError {}
export class Invalid extends RegrowError {}
export class Failed extends RegrowError {}
const kindOf = (code) => (REFUSED.includes(code) ? Refused : INVALID.includes(code) ? Invalid : Failed);
const errorOf = (body) => new (kindOf(body.code))(body);
const failed = (code, message, started = "unknown") => errorOf({ code, message, started });
const lost = (at) => failed("connection_error", `the connection to ${at} was lost before the answer came`);
const unreachable = (at) => failed("connection_error", `cannot reach a daemon at ${at}`, "no");
const parse = (frame) => (frame?.length ? JSON.parse(frame.toString()) : null);

// One DEALER socket, from its connection to its loss; each request in flight has a queue of answers.
class Link {
  #queues = new Map(); #go;
  // zeromq refuses to send twice at a time, and the first send waits for the connection, so nothing is queued for a
  // daemon that is not there (zeromq's own option for that, `immediate`, drops what came before an end unread)
  #sending = new Promise((resolve) => (this.#go = resolve));
  constructor(endpoint, { connectTimeoutMs: sendTimeout, serverKey, publicKey, secretKey }) {
    this.endpoint = endpoint;
    const curve = serverKey && { curveServerKey: serverKey, curvePublicKey: publicKey, curveSecretKey: secretKey };
    this.socket = new Dealer({ linger: 500, heartbeatInterval: 2000, heartbeatTimeout: 6000, sendTimeout, ...curve });
    this.socket.events.on("handshake", () => this.#go(this.isUp = true));
    this.socket.events.on("disconnect", () => this.#lose());
    setTimeout(() => this.isUp || this.close(), sendTimeout).unref();
    this.socket.connect(endpoint);
    this.#read().catch(() => {}).finally(() => this.close());
  }
  async #read() {
    for await (const [, op, id, head, body] of this.socket) {
      const header = parse(head) ?? {}, put = this.#queues.get(`${id}`);
      if (put && !header.duplicate) put(`${op}` === "ERROR" ? errorOf(parse(body)) : { op: `${op}`, header, body });
    }
  }
  // what came before the end is still read: from now on no read waits, and the one that may be waiting ends soon
  #lose() { this.isClosed = true; this.socket.receiveTimeout = 0; setTimeout(() => this.close(), 20); }
  close() {
    if (!this.socket.closed) this.socket.close();
    this.#go(this.isClosed = true);
    for (const put of this.#queues.values()) put(lost(this.endpoint));
  }
  send(op, id, header = {}, body = "") {
    const frames = ["RG1", op, id, JSON.stringify(header), body];
    const sent = this.#sending.then(() => (this.isClosed ? Promise.reject() : this.socket.send(frames)));
    this.#sending = sent.catch(() => {});
    return sent.catch(() => { throw this.isClosed ? lost(this.endpoint) : unreachable(this.endpoint); });
  }
  open(id) {
    const items = this.isClosed ? [lost(this.endpoint)] : [];
    let wake, timer;
    this.#queues.set(id, (item) => { items.push(item); wake?.(); });
    const next = async (limitMs) => {
      const wait = (resolve) => { wake = resolve; timer = setTimeout(resolve, Math.min(limitMs, MAX_TIMER_MS)); };
      if (!items.length) await new Promise(wait);
      clearTimeout(timer);
      const found = items.shift() ?? failed("deadline_exceeded", `no answer within ${limitMs} ms`);
      if (found instanceof Error) throw found; else return found;
    };
    return { next, end: () => this.#queues.delete(id) };
  }
}

export class Client {
  #latest; #link; #ids = 0;
  constructor(endpoint, options = {}) {
    this.endpoint = endpoint;
    this.options = { connectTimeoutMs: 5000, name: `node-${process.pid}`, ...options };
  }
  async ask(to, method, args = {}, { timeoutMs = this.options.timeoutMs, idem, trace } = {}) {
    const header = { to, method, deadline_ms: timeoutMs, idem, trace };
    return parse((await this.#exchange("ASK", header, JSON.stringify(args))).body);
  }
  // with ack it returns once the message is in the mailbox, without once it was sent
  async tell(to, method, args = {}, { ack = true } = {}) {
    if (ack) await this.#exchange("TELL", { to, method, ack }, JSON.stringify(args));
    else await (await this.#open()).link.send("TELL", `${++this.#ids}`, { to, method }, JSON.stringify(args));
  }
  async describe(to) { return parse((await this.#exchange("DESCRIBE", { to })).body); }
  async ping() { return (await this.#exchange("PING", {})).header; }
  async welcome() { return (await this.#open()).welcome; }
  close() { this.isClosed = true; this.#latest?.close(); }
  // the parts of a stream, at most `credit` of them ahead of the reader; leaving the loop early cancels it
  async *stream(to, method, args = {}, { timeoutMs = this.options.timeoutMs, credit = 100 } = {}) {
    const { link, welcome } = await this.#open();
    const id = `${++this.#ids}`, queue = link.open(id), limitMs = timeoutMs ?? welcome.limits.max_deadline_ms;
    let isOver = false, read = 0;
    try {
      await link.send("ASK", id, { to, method, deadline_ms: timeoutMs, stream: true, credit }, JSON.stringify(args));
      for (;;) {
        const answer = await queue.next(limitMs + GRACE_MS).catch((error) => { isOver = true; throw error; });
        if ((isOver = answer.op === "END")) return;
        yield parse(answer.body);
        if (++read >= credit / 2) await link.send("CREDIT", id, { n: read }).catch(() => {}).then(() => (read = 0));
      }
    } finally {
      queue.end();
      if (!isOver && !link.isClosed) await link.send("CANCEL", id);
    }
  }
  async #exchange(op, header, body = "", incarnation = undefined) {
    const { link, welcome } = await this.#open().catch((error) => { throw incarnation ? lost(this.endpoint) : error; });
    if ((incarnation ?? welcome.incarnation) !== welcome.incarnation) throw lost(this.endpoint);
    const id = `${++this.#ids}`, queue = link.open(id);
    const limitMs = op === "ASK" ? (header.deadline_ms ?? welcome.limits.max_deadline_ms) + GRACE_MS : CONTROL_MS;
    try {
      await link.send(op, id, header, body);
      return await queue.next(limitMs);
    } catch (error) {
      if (!link.isClosed || error.code !== "connection_error" || !header.idem || incarnation) throw error;
      return await this.#exchange(op, header, body, welcome.incarnation);
    } finally { queue.end(); }
  }
  #open() {
    if (this.isClosed) return Promise.reject(unreachable(this.endpoint));
    const link = this.#latest;
    if (!link || link.isClosed) this.#link = this.#greet((this.#latest = new Link(this.endpoint, this.options)));
    return this.#link;
  }
  async #greet(link) {
    const id = `${++this.#ids}`, queue = link.open(id);
    try {
      await link.send("HELLO", id, { client: this.options.name, versions: ["RG1"] });
      return { link, welcome: (await queue.next(this.options.connectTimeoutMs)).header };
    } catch (error) {
      link.close();
      throw ["connection_error", "deadline_exceeded"].includes(error.code) ? unreachable(this.endpoint) : error;
    } finally { queue.end(); }
  }
}

export const connect = (endpoint, options) => new Client(endpoint, options);
