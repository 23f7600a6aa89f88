// Calls of the service. Addresses come from its links; the few that a page begins with are named here.

const KEY = "sitsearch.key";

export const key = {
  get: () => localStorage.getItem(KEY) ?? "",
  set: (value) => (value ? localStorage.setItem(KEY, value) : localStorage.removeItem(KEY)),
};

/** A refusal: an RFC 9457 problem. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.errors = body.errors ?? [];
    this.retryAfter = body.retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

function headers(more) {
  const all = { Accept: "application/json", ...more };
  if (key.get()) all.Authorization = `Bearer ${key.get()}`;
  return all;
}

async function call(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The service does not answer.");
  }
  if (!answer.ok && answer.status !== 304) {
    const body = await answer.json().catch(() => ({ title: answer.statusText }));
    throw new Problem(answer.status, { ...body, retryAfter: Number(answer.headers.get("Retry-After")) || undefined });
  }
  return answer;
}

export const get = async (address, options) => (await call(address, options)).json();

export async function post(address, body, options = {}) {
  const more = body === undefined ? {} : { "Content-Type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  return (await call(address, { method: "POST", body: text, ...options, headers: { ...more, ...options.headers } })).json();
}

const pictures = new Map();
const MOST = 200;

/** The address of a picture that was fetched with the key: the same for the same address and version. */
export async function picture(address, version = "") {
  const name = `${address}#${version}`;
  if (!pictures.has(name)) {
    const blob = await (await call(address, { headers: { Accept: "image/*" }, cache: "no-cache" })).blob();
    pictures.set(name, URL.createObjectURL(blob));
    if (pictures.size > MOST) {
      const [oldest, url] = pictures.entries().next().value;
      pictures.delete(oldest);
      URL.revokeObjectURL(url);
    }
  }
  return pictures.get(name);
}

/**
 * Follow a stream of server-sent events, with the key, and come back to it when the connection drops.
 * @param onEvent called with name, data and id of each event.
 * @param onState called with `true` when the stream is open and `false` when it is lost.
 */
export async function follow(address, { onEvent, onState, signal }) {
  let last = null;
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      const more = last === null ? {} : { "Last-Event-ID": last };
      const answer = await call(address, { signal, cache: "no-store", headers: { Accept: "text/event-stream", ...more } });
      if (answer.status === 204) return;
      onState?.(true);
      for await (const event of events(answer.body)) {
        tries = 0;
        if (event.id) last = event.id;
        if (onEvent(event.name, JSON.parse(event.data), last) === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) throw error;
    }
    onState?.(false);
    await new Promise((done) => setTimeout(done, Math.min(500 * 2 ** tries, 8000)));
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const event = { name: "message", data: "", id: "" };
      for (const line of text.slice(0, end).split("\n")) {
        const [, field, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === "event") event.name = content;
        else if (field === "data") event.data += content;
        else if (field === "id") event.id = content;
      }
      text = text.slice(end + 2);
      if (event.data) yield event;
    }
  }
}
