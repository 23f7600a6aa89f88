// A job as it stands and as it goes on: its record, its rounds, and the small pictures of their candidates.

import { follow, get, Problem } from "./api.js";
import { ended, selectors } from "./words.js";

const PAGE = 500; // rounds of a call without pictures
const PICTURED = 20; // of one with them
const MOST_PICTURES = 4000; // held at once
const MOST_BITMAPS = 1500; // decoded at once

/** Follows one job. Listeners are told `job`, `rounds`, `pictures` or `connection`. */
export class Live {
  constructor(address) {
    this.address = address;
    this.job = null;
    this.rounds = []; // { round, count, candidates: [{ id, scores, nfe, ... }], nfe } in order
    this.places = new Map(); // of a candidate, by id: its round's place
    this.pictures = new Map(); // by candidate id; null where there is none
    this.bitmaps = new Map(); // the same, decoded; null while it is not
    this.asked = new Set(); // first rounds of what is asked for
    this.connected = null;
    this.listeners = new Set();
    this.stop = new AbortController();
    this.template = null;
    this.pending = null;
  }

  listen(listener) {
    this.listeners.add(listener);
  }

  tell(what) {
    for (const listener of this.listeners) listener(what);
  }

  close() {
    this.stop.abort();
    this.listeners.clear();
    this.decoder?.terminate();
  }

  /** The verifier by whose score candidates are told apart. */
  get by() {
    return selectors(this.job.request)[0];
  }

  async start() {
    this.job = await get(this.address);
    this.tell("job");
    await this.catchUp();
    this.watch();
  }

  /** Listen to the job's events until it has ended. */
  watch() {
    if (this.watching || ended(this.job)) return;
    this.watching = true;
    follow(this.job.links.events, {
      signal: this.stop.signal,
      onEvent: (name, data) => this.heard(name, data),
      onState: (connected) => {
        this.connected = connected;
        this.tell("connection");
      },
    })
      .catch((error) => {
        if (!(error instanceof Problem)) throw error;
      })
      .finally(() => {
        this.watching = false;
      });
  }

  heard(name, data) {
    if (name === "job" && data) {
      this.take(data);
      this.catchUp();
      return ended(data) ? "end" : undefined;
    }
    if (name === "status") {
      this.take({ ...this.job, status: data.status, started_at: this.job.started_at ?? (data.status === "running" ? Date.now() / 1000 : null), queue_position: null });
    } else if (name === "round") {
      const { point, candidates, ...progress } = data;
      const curve = [...this.job.progress.curve];
      if (point && (!curve.length || curve.at(-1).nfe < point.nfe)) curve.push(point);
      this.take({ ...this.job, note: null, progress: { ...progress, curve } });
      this.catchUp();
    }
    return undefined;
  }

  /** A newer record; a curve that reaches further is not given up for a shorter one. */
  take(job) {
    const old = this.job?.progress.curve ?? [];
    if (old.length && old.at(-1).nfe > (job.progress.curve.at(-1)?.nfe ?? 0)) job = { ...job, progress: { ...job.progress, curve: old } };
    this.job = job;
    this.tell("job");
  }

  async refresh() {
    this.take(await get(this.address));
    this.watch();
  }

  /** Read the rounds that were told since: one call at a time, however many events ask for it. */
  catchUp() {
    this.again = true;
    this.pending ??= this.readRounds().finally(() => {
      this.pending = null;
    });
    return this.pending;
  }

  async readRounds() {
    while (this.again && !this.stop.signal.aborted) {
      this.again = false;
      let first = this.rounds.length ? this.rounds.at(-1).round + 1 : 0;
      while (first < this.job.progress.round) {
        const few = this.job.progress.round - first <= PICTURED;
        const page = await this.ask(first, few ? PICTURED : PAGE, few);
        if (!page) return;
        this.template = page.links.candidate;
        for (const round of page.rounds) if (round.round >= first) this.add(round);
        this.tell("rounds");
        const last = page.rounds.at(-1)?.round ?? -1;
        if (page.links.next === null) break;
        first = Math.max(last + 1, first + (few ? PICTURED : PAGE));
      }
    }
  }

  add(round) {
    const before = this.rounds.at(-1)?.nfe ?? 0;
    let nfe = before;
    for (const candidate of round.candidates) {
      nfe += candidate.nfe;
      candidate.at = nfe;
      candidate.round = round.round;
      if (candidate.thumbnail !== undefined && candidate.thumbnail !== null) this.hold(candidate.id, candidate.thumbnail);
      delete candidate.thumbnail;
      this.places.set(candidate.id, this.rounds.length);
    }
    const shown = nfe - before;
    round.nfe = before + (round.candidates.length ? Math.round((shown / round.candidates.length) * round.count) : 0);
    this.rounds.push(round);
  }

  hold(id, picture) {
    this.pictures.set(id, picture);
    if (this.pictures.size > MOST_PICTURES) this.pictures.delete(this.pictures.keys().next().value);
  }

  /** A candidate's picture, ready to be drawn; undefined while it is fetched or decoded, at the end of which `pictures` is told. */
  bitmap(id) {
    const found = this.bitmaps.get(id);
    if (found !== undefined) return found ?? undefined;
    if (!this.pictures.has(id)) {
      this.want(id);
      return undefined;
    }
    const picture = this.pictures.get(id);
    this.bitmaps.set(id, null);
    if (picture) this.decode(id, picture);
    return undefined;
  }

  decode(id, picture) {
    if (!this.decoder) {
      this.decoder = new Worker(new URL("decode.js", import.meta.url));
      this.decoder.addEventListener("message", ({ data }) => this.decoded(data.id, data.bitmap));
    }
    this.decoder.postMessage({ id, picture });
  }

  decoded(id, bitmap) {
    this.bitmaps.set(id, bitmap);
    if (this.bitmaps.size > MOST_BITMAPS) {
      const [oldest, old] = this.bitmaps.entries().next().value;
      this.bitmaps.delete(oldest);
      old?.close();
    }
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.tell("pictures");
    });
  }

  async ask(first, limit, pictures) {
    try {
      return await get(`${this.job.links.rounds}?first=${first}&limit=${limit}&pictures=${pictures}`, { signal: this.stop.signal });
    } catch (error) {
      if (error.name !== "AbortError") setTimeout(() => this.stop.signal.aborted || this.catchUp(), 3000);
      return null;
    }
  }

  /** Ask for the pictures of a candidate's round and of those after it, if they are not here. */
  async want(id) {
    if (this.pictures.has(id)) return;
    const number = this.rounds[this.places.get(id)]?.round;
    if (number === undefined) return;
    const first = number - (number % PICTURED);
    if (this.asked.has(first)) return;
    this.asked.add(first);
    const page = await this.ask(first, PICTURED, true);
    this.asked.delete(first);
    for (const round of page?.rounds ?? []) for (const candidate of round.candidates) this.hold(candidate.id, candidate.thumbnail);
    if (page) this.tell("pictures");
  }

  address_of(id) {
    return (this.template ?? `${this.address}/candidates/{id}`).replace("{id}", encodeURIComponent(id));
  }
}
