// Talks to the server. Changes are sent one after the other, and again until they are answered: what the page says is
// saved is on the server's disk.
import { emit, state } from "./state.js";

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const LOST = 0; // no answer, or half of one

// Every request says which work it is of: by now the server may have been started again with other pictures.
async function ask(path, options, read = (answer) => answer.json()) {
  const headers = { ...options?.headers, "mal-trt-work": state.about?.key ?? "" };
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options, headers });
    if (answer.ok) return await read(answer);
  } catch {
    throw new Refused(LOST, "the server does not answer");
  }
  let text = `the server answered ${answer.status}`;
  try { text = (await answer.json()).error ?? text; } catch { /* not from our routes */ }
  if (answer.status === 401) text = "the server asks for its token: open the address that it printed when it started";
  throw new Refused(answer.status, text);
}

// What a change waits for: the token is not known, the server works on something else, is busy, has no room on its disk,
// or is away, behind a proxy perhaps. What else is refused would be refused again.
const PASSING = new Set([LOST, 401, 408, 412, 429, 502, 503, 504, 507]);
export const passes = (error) => error instanceof Refused && PASSING.has(error.status);
export const OTHER_WORK = 412;

const json = (method, body) => ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const get = (path) => ask(path);
export const getBlob = (path) => ask(path, {}, (answer) => answer.blob());
export const post = (path, body) => ask(path, json("POST", body));
export const patch = (path, body) => ask(path, json("PATCH", body));

export async function upload(file) {
  const options = { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file };
  return ask(`workspace/uploads?name=${encodeURIComponent(file.name)}`, options);
}

export function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let line = Promise.resolve();
let waiting = 0;

// A change of the work. The same token goes with every try, so a change whose answer was lost is made once.
export function change(method, path, body) {
  waiting += 1;
  emit("saving", "saving");
  const made = line.then(async () => {
    const once = token();
    const [to, options] = method === "DELETE" ? [`${path}?token=${once}`, { method }] : [path, json(method, { ...body, token: once })];
    for (let tries = 0; ; tries += 1) {
      try {
        return await ask(to, options);
      } catch (error) {
        if (!passes(error)) throw error;
        emit("saving", "lost", error.message);
        await pause(Math.min(4000, 400 * 2 ** tries));
      }
    }
  });
  line = made.catch(() => {}).finally(() => {
    waiting -= 1;
    emit("saving", waiting ? "saving" : "saved");
  });
  return made;
}

export const unsaved = () => waiting > 0;
export const settled = () => line;
