// Everything that changes the work: each function asks the server and takes over what it answers.
import * as api from "./api.js";
import { forget, keepOnly } from "./masks.js";
import { emit, select, selected, state } from "./state.js";

// What is in the way of a change that cannot be made, said to people.
const failed = (error) => emit("failed", error.message);
const notDrawn = () => emit("told", "Its masks are still being drawn.");

export const say = (text) => emit("said", text);

export async function refreshAbout() {
  state.about = await api.get("workspace");
  if (!state.about.categories.some((one) => one.number === state.category)) {
    state.category = state.about.categories[0]?.number ?? 1;
  }
  emit("about");
}

let ordering = 0;

export async function refreshOrder() {
  const turn = ++ordering;
  const query = new URLSearchParams({ shown: state.shown, sort: state.sort, search: state.search });
  try {
    const { ids } = await api.get(`workspace/pictures?${query}`);
    if (turn !== ordering) return;
    state.ids = ids;
    emit("order");
  } catch (error) {
    failed(error);
  }
}

// How many changes of each object have no answer yet. Until the last has one, the page knows the object better than
// the answers to those before it.
const unanswered = new Map();
const waits = (id) => unanswered.has(id);

function count(id, by) {
  const left = (unanswered.get(id) ?? 0) + by;
  if (left) unanswered.set(id, left);
  else unanswered.delete(id);
}

function take(answer) {
  if (answer.id !== state.picture?.id) return; // of a picture that is no longer shown
  const known = new Map(state.picture.objects.map((one) => [one.id, one]));
  answer.objects = answer.objects.map((now) => renewed(known.get(now.id), now));
  state.picture = answer;
  keepOnly(answer.objects, waits);
  if (!selected()) state.selected = 0;
  emit("objects");
  emit("selection");
  emit("row", answer.id);
}

// An object as the server has it, in the place of the one that a hand may hold just now.
function renewed(one, now) {
  if (!one) return now;
  if (waits(one.id)) return one;
  if (!one.movedTo) {
    one.trying = false;
    delete one.tried;
  }
  return Object.assign(one, now);
}

// What somebody else did in the picture that is shown.
export async function refreshPicture() {
  if (!state.picture) return;
  const now = await api.get(`workspace/pictures/${state.picture.id}`);
  if (now.step !== state.picture?.step && !api.unsaved()) take(now);
}

let opening = 0;
const fileOf = (id) => `workspace/pictures/${id}/file?key=${state.about?.key ?? ""}`;

export async function openPicture(id) {
  const turn = ++opening, before = state.at;
  state.at = id;
  emit("busy", true);
  try {
    const [about, blob] = await Promise.all([api.get(`workspace/pictures/${id}`), api.getBlob(fileOf(id))]);
    const bitmap = await createImageBitmap(blob, { imageOrientation: "none", premultiplyAlpha: "none", colorSpaceConversion: "none" });
    if (turn !== opening) return bitmap.close();
    show(about, bitmap);
    prepare(id);
    await drawMissing(() => turn === opening);
  } catch (error) {
    if (turn !== opening) return;
    // Without an answer what is shown stays. A picture that cannot be used keeps its place in the list, and can be passed.
    if (api.passes(error)) state.at = state.picture?.id ?? before;
    else {
      show(null, null, error.message);
      emit("row", id);
    }
    failed(error);
  } finally {
    if (turn === opening) emit("busy", false);
  }
}

function show(picture, bitmap, problem = "") {
  forget();
  state.bitmap?.close();
  Object.assign(state, { picture, bitmap, problem, selected: 0, hovered: 0 });
  emit("picture");
  emit("objects");
  emit("selection");
}

const AGAIN = 1000; // milliseconds after the server had no time for masks
export const missing = () => state.picture?.objects.some((one) => one.counts === null) ?? false;

// Let the model draw what is missing in the picture that is shown: some masks an answer, so that they can be seen.
async function drawMissing(wanted) {
  while (wanted() && missing()) {
    try {
      const drawn = await api.post(`workspace/pictures/${state.picture.id}/masks`, {});
      if (wanted()) take(drawn);
    } catch (error) {
      if (!api.passes(error)) {
        if (wanted()) failed(error);
        return;
      }
      await api.pause(AGAIN);
    }
  }
}

// The next picture, so that it is there at once when it is wanted.
function prepare(id) {
  const next = state.ids[state.ids.indexOf(id) + 1];
  if (next === undefined) return;
  setTimeout(() => {
    if (state.picture?.id === id) api.getBlob(fileOf(next)).catch(() => {});
  }, 400);
}

// What became of a change. of: the object that it changes.
async function changed(promise, { of, said } = {}) {
  if (of) count(of.id, 1);
  try {
    const answer = await promise.finally(() => of && count(of.id, -1));
    take(answer);
    if (said) say(said);
    return answer;
  } catch (error) {
    failed(error);
    if (state.picture) {
      try { take(await api.get(`workspace/pictures/${state.picture.id}`)); } catch { /* the next change says it */ }
    }
    return null;
  }
}

const pathOf = (one) => `workspace/objects/${one.id}`;

// A new object. Until its mask is there nothing is selected, so that no key meant for it reaches another; a class that
// is chosen meanwhile is its own, and so is the selection, unless something else was selected.
export async function create(box) {
  const { category } = state;
  select(0);
  emit("busy", true);
  const answer = await changed(api.change("POST", `workspace/pictures/${state.picture.id}/objects`, { box, category }));
  emit("busy", false);
  const made = answer && state.picture?.id === answer.id ? state.picture.objects.find((one) => one.id === answer.made) : null;
  if (!made) return;
  if (!state.selected) {
    select(made.id);
    if (state.category !== category) await setCategory(made, state.category);
  }
  say(`Box drawn; score ${scoreText(made)}`);
}

export const scoreText = (one) => (one?.score == null ? "none" : one.score.toFixed(2));

export async function move(one, box) {
  emit("busy", true);
  await changed(api.change("PATCH", pathOf(one), { box }), { of: one });
  emit("busy", false);
}

export const setThreshold = (one, threshold) =>
  changed(api.change("PATCH", pathOf(one), { threshold }), { of: one, said: `Threshold ${threshold}` });

export const setCategory = (one, category) => changed(api.change("PATCH", pathOf(one), { category }), { of: one });

export const setState = (one, to) =>
  one.counts === null ? notDrawn() : changed(api.change("PATCH", pathOf(one), { state: one.state === to ? "new" : to }), {
    of: one,
    said: one.state === to ? "Not decided" : to,
  });

export const redraw = (one) =>
  changed(api.change("PATCH", pathOf(one), { redraw: true }), { of: one, said: "Drawn again by the model" });

export const setMask = (one, counts) => changed(api.change("PUT", `${pathOf(one)}/mask`, { counts }), { of: one });

export const remove = (one) => changed(api.change("DELETE", pathOf(one)), { said: "Deleted; undo brings it back" });

async function again(what) {
  if (!state.picture) return;
  const answer = await changed(api.change("POST", `workspace/pictures/${state.picture.id}/${what}`, {}), {
    said: what === "undo" ? "Undone" : "Done again",
  });
  if (answer) await drawMissing(() => state.picture?.id === answer.id);
}
export const undo = () => state.picture?.undo && again("undo");
export const redo = () => state.picture?.redo && again("redo");

export async function acceptAll() {
  if (state.picture?.id !== state.at) return; // the next one is on its way
  if (missing()) return notDrawn(); // nobody has seen them
  const before = state.picture.id, turn = opening;
  const answer = await changed(api.change("POST", `workspace/pictures/${before}/accept`, {}));
  if (answer && turn === opening) await goNextUnseen(before).catch(failed); // else they went on themselves
}

async function goNextUnseen(from) {
  const query = new URLSearchParams({ shown: "unseen", sort: state.sort, search: state.search });
  const unseen = new Set((await api.get(`workspace/pictures?${query}`)).ids);
  const place = state.ids.indexOf(from);
  const next = [...state.ids.slice(place + 1), ...state.ids.slice(0, Math.max(0, place))].find((id) => unseen.has(id));
  if (next !== undefined) await openPicture(next);
  else emit("told", "Every picture here has been looked at.");
}

export function step(by) {
  const next = state.ids[state.ids.indexOf(state.at) + by];
  if (next !== undefined) openPicture(next);
}

export function stepObject(by) {
  const objects = state.picture?.objects ?? [];
  if (!objects.length) return;
  const place = objects.findIndex((one) => one.id === state.selected);
  select(objects[(place + by + objects.length + (place < 0 && by < 0 ? 1 : 0)) % objects.length].id);
}

export async function addCategory(name) {
  try {
    const { number } = await api.post("workspace/categories", { name });
    state.category = number;
    await refreshAbout();
    const one = selected();
    if (one) await setCategory(one, number);
  } catch (error) {
    failed(error);
  }
}

export async function renameCategory(number, name) {
  try {
    await api.patch(`workspace/categories/${number}`, { name });
    await refreshAbout();
  } catch (error) {
    failed(error);
  }
}

export async function uploadAll(files) {
  let first = 0, done = 0;
  for (const file of files) {
    emit("told", `Adding ${done + 1} of ${files.length}: ${file.name}`);
    try {
      if (file.size > state.about.limits.body) throw new Error(`${file.name}: larger than ${Math.round(state.about.limits.body / 2 ** 20)} MB`);
      const { id } = await api.upload(file);
      first ||= id;
      done += 1;
    } catch (error) {
      failed(error);
    }
  }
  if (!done) return;
  emit("told", `${done} of ${files.length} added`);
  await refreshAbout();
  await refreshOrder();
  await openPicture(first);
}

// A mask to look at while a slider or a box is being moved: one at a time, the last one wanted always.
let trying = null;
let wanted = null;

export function tryMask(one, box, threshold) {
  wanted = { one, box, threshold, picture: state.picture.id };
  if (!trying) trying = tryWanted().finally(() => { trying = null; });
}

export const stopTrying = () => { wanted = null; };

async function tryWanted() {
  while (wanted) {
    const asked = wanted;
    wanted = null;
    try {
      const { counts, score } = await api.post(`workspace/pictures/${asked.picture}/preview`, { box: asked.box, threshold: asked.threshold });
      const now = state.picture?.objects.includes(asked.one);
      if (now && asked.one.trying) {
        Object.assign(asked.one, { tried: counts, triedScore: score });
        emit("tried", asked.one);
      }
    } catch { /* the change itself says what is wrong */ }
  }
}
