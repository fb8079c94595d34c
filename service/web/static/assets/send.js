// Pictures to POST /predict/batch and back: in small parts, few at once, so that results come early and limits hold.

const MOST_PICTURES = 16; // in one part
const MOST_BYTES = 8 * 1024 * 1024; // in one part
const AT_ONCE = 2; // requests
const TRIES = 6; // of a part while the service has no room
const LOADING_TRIES = 60; // while it loads the model
const LONGEST_WAIT = 30; // seconds
// Where versions share the requests, one of them answers to all that this page sends.
const STICKY = Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(16)).join("");

/** Return the pictures in parts, each small enough for one request unless a single picture is too large. */
export function inParts(pictures) {
  const parts = [];
  let part = [];
  let bytes = 0;
  for (const picture of pictures) {
    const { size } = picture.file;
    if (part.length === 0 || part.length === MOST_PICTURES || bytes + size > MOST_BYTES) {
      part = [];
      bytes = 0;
      parts.push(part);
    }
    part.push(picture);
    bytes += size;
  }
  return parts;
}

/**
 * Sends pictures and reports: answered(picture, outcome, model) for each, waiting(seconds) when the service has no
 * room, finished() when nothing is left. An outcome has predictions or a message. The address is that of the service's
 * route, with what it is to answer by.
 */
export class Sender {
  #report;
  #address;
  #queue = [];
  #running = 0;
  #abort = new AbortController();

  constructor(report, address = "predict/batch") {
    this.#report = report;
    this.#address = address;
  }

  /** Whether requests are under way. */
  get busy() {
    return this.#running > 0;
  }

  add(pictures) {
    this.#queue.push(...inParts(pictures));
    while (this.#running < AT_ONCE && this.#queue.length > 0) this.#work();
  }

  /** Give up what was not answered yet. */
  cancel() {
    for (const picture of this.#queue.splice(0).flat()) this.#report.answered(picture, CANCELLED);
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  async #work() {
    this.#running += 1;
    while (this.#queue.length > 0) await this.#send(this.#queue.shift(), this.#abort.signal);
    this.#running -= 1;
    if (this.#running === 0) this.#report.finished();
  }

  async #send(part, signal) {
    const readable = await this.#readable(part);
    if (readable.length === 0) return;
    try {
      const response = await this.#post(readable, signal);
      if (response.status === 413 && readable.length > 1) this.#halve(readable, signal);
      else this.#tell(readable, response.status, await parsed(response));
    } catch {
      const outcome = signal.aborted ? CANCELLED : UNREACHED;
      for (const picture of readable) this.#report.answered(picture, outcome);
    }
  }

  /** Return the pictures of a part that can be read; one that cannot would take the others down with it. */
  async #readable(part) {
    const readable = [];
    for (const picture of part) {
      try {
        await picture.file.slice(0, 1).arrayBuffer();
        readable.push(picture);
      } catch {
        this.#report.answered(picture, UNREADABLE);
      }
    }
    return readable;
  }

  async #post(part, signal) {
    const form = new FormData();
    for (const { file, name } of part) form.append("images", file, name);
    for (let tries = 1; ; tries += 1) {
      const hidden = document.getElementById("private")?.checked ? { "X-Darkroom-Capture": "no" } : {};
      const headers = { "X-Darkroom-Sticky": STICKY, ...hidden };
      const response = await fetch(this.#address, { method: "POST", body: form, headers, signal });
      if (response.status !== 503 || tries >= (await allowed(response))) return response;
      const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT);
      this.#report.waiting(seconds);
      await pause(seconds, signal);
    }
  }

  /** Put a part that is over the service's limits back in two halves. */
  #halve(part, signal) {
    const middle = Math.ceil(part.length / 2);
    if (signal.aborted) throw signal.reason;
    this.#queue.unshift(part.slice(0, middle), part.slice(middle));
  }

  #tell(part, status, answer) {
    part.forEach((picture, index) => {
      const outcome = answer?.results?.[index] ?? { message: answer?.message ?? `The service answered with ${status}.` };
      this.#report.answered(picture, outcome, answer?.model);
    });
  }
}

const CANCELLED = { message: "Cancelled." };
const UNREADABLE = { message: "The browser cannot read this file." };
const UNREACHED = { message: "The connection failed: the service is not there, or the file is far too large for it." };

/** Return how often it is tried to get another answer than this 503. */
async function allowed(response) {
  const answer = await parsed(response.clone());
  return answer?.error === "model_loading" ? LOADING_TRIES : TRIES;
}

/** Return the JSON of a response; null where it is none, as a proxy's error page. */
async function parsed(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
