// Talks to the server. Changes are sent one after the other, and again until they are answered: what the page says is
// saved is on the server's disk.
import { emit } from "./state.js";

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.ok) return answer;
  let text = `the server answered ${answer.status}`;
  try { text = (await answer.json()).error ?? text; } catch { /* not from our routes */ }
  if (answer.status === 401) text = "The server asks for its token: open the address that it printed when it started.";
  throw new Refused(answer.status, text);
}

const json = (method, body) => ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const get = async (path) => (await ask(path)).json();
export const getBlob = async (path) => (await ask(path)).blob();
export const post = async (path, body) => (await ask(path, json("POST", body))).json();

export async function upload(file) {
  const options = { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file };
  return (await ask(`workspace/uploads?name=${encodeURIComponent(file.name)}`, options)).json();
}

export function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const busy = (error) => error instanceof Refused && error.status === 503;
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
        return await (await ask(to, options)).json();
      } catch (error) {
        if (error instanceof Refused && !busy(error)) throw error;
        emit("saving", "lost");
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
