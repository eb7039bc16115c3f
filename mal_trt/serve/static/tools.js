// Pointers on the canvas: mouse, pen and fingers, as the tool in hand has it.
import { maskOf, show, unshow } from "./masks.js";
import { HANDLE, cursor, handles, making, paint } from "./paint.js";
import { encode, fillInside, grown, holds, stroke } from "./rle.js";
import { emit, on, select, selected, state } from "./state.js";
import { pan, toPicture, view, zoom } from "./viewport.js";
import { create, move, setMask, stopTrying, tryMask } from "./work.js";

const canvas = document.getElementById("canvas");
const SLOP = 4; // CSS pixels that a hand may tremble
const LEAST = 2; // picture pixels of a new box's side
const pointers = new Map();
let gesture = null; // what the one pointer does: {kind, ...}
let pinch = null;
export const held = { space: false };

const place = (event) => {
  const { left, top } = canvas.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
};
const tenth = (value) => Math.round(value * 10) / 10;

export function within([x0, y0, x1, y1]) {
  const { width, height } = state.picture;
  const cut = (value, most) => tenth(Math.min(most, Math.max(0, value)));
  return [cut(Math.min(x0, x1), width), cut(Math.min(y0, y1), height), cut(Math.max(x0, x1), width), cut(Math.max(y0, y1), height)];
}

const inBox = ([x0, y0, x1, y1], x, y) => x >= x0 && x < x1 && y >= y0 && y < y1;
const areaOf = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

// The object that is meant at a place of the picture: the smallest whose mask is there, else whose box is.
export function objectAt(x, y) {
  const objects = [...(state.picture?.objects ?? [])].sort((a, b) => areaOf(a.box) - areaOf(b.box));
  return objects.find((one) => holds(maskOf(one).mask, x, y)) ?? objects.find((one) => inBox(one.box, x, y)) ?? null;
}

function handleAt(sx, sy, coarse) {
  const one = selected();
  if (!one || state.tool === "brush" || state.tool === "erase") return null;
  const reach = coarse ? 20 : HANDLE + 4;
  let best = null, least = reach;
  for (const [name, x, y] of handles(one.box)) {
    const far = Math.max(Math.abs(x - sx), Math.abs(y - sy));
    if (far < least) [best, least] = [name, far];
  }
  return best;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!state.picture) return;
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  const [sx, sy] = place(event);
  pointers.set(event.pointerId, [sx, sy]);
  if (pointers.size === 2) return startPinch();
  if (pointers.size > 2) return;
  event.preventDefault();
  const coarse = event.pointerType === "touch";
  const [x, y] = toPicture(sx, sy);
  const base = { sx, sy, x, y, lastX: sx, lastY: sy };
  if (event.button === 1 || held.space || state.tool === "hand") gesture = { kind: "pan", ...base };
  else if (state.tool === "brush" || state.tool === "erase") startStroke(event, base);
  else {
    const handle = handleAt(sx, sy, coarse);
    if (event.button !== 0) return;
    if (handle) gesture = { kind: "resize", handle, one: selected(), box: selected().box, ...base };
    else if (state.tool === "box") gesture = { kind: "create", ...base };
    else {
      const now = selected();
      const hit = now && inBox(now.box, x, y) && holds(maskOf(now).mask, x, y) ? now : objectAt(x, y);
      gesture = hit ? { kind: "move", one: hit, box: hit.box, ...base } : { kind: "pan", clears: true, ...base };
    }
  }
  setCursor(sx, sy);
  paint();
});

canvas.addEventListener("pointermove", (event) => {
  const [sx, sy] = place(event);
  Object.assign(cursor, { x: sx, y: sy, inside: event.pointerType !== "touch" || gesture?.kind === "stroke" });
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [sx, sy]);
  if (pinch) return movePinch();
  if (!gesture) {
    setCursor(sx, sy);
    if (event.pointerType !== "touch") hover(sx, sy);
    if (state.tool !== "select" && state.tool !== "hand") paint();
    return;
  }
  for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) drag(...place(each));
  paint();
});

function hover(sx, sy) {
  const id = state.picture ? (objectAt(...toPicture(sx, sy))?.id ?? 0) : 0;
  if (id !== state.hovered) {
    state.hovered = id;
    emit("hover");
  }
}

function drag(sx, sy) {
  const far = Math.hypot(sx - gesture.sx, sy - gesture.sy);
  const [x, y] = toPicture(sx, sy);
  if (gesture.kind === "stroke") return moveStroke(x, y);
  if (!gesture.begun && far < SLOP) return;
  gesture.begun = true;
  if (gesture.kind === "pan") pan(sx - gesture.lastX, sy - gesture.lastY);
  else if (gesture.kind === "create") making.box = within([gesture.x, gesture.y, x, y]);
  else if (gesture.kind === "move") {
    if (selected() !== gesture.one) select(gesture.one.id);
    shift(gesture.one, moved(gesture.box, x - gesture.x, y - gesture.y));
  } else if (gesture.kind === "resize") shift(gesture.one, resized(gesture.box, gesture.handle, x, y));
  [gesture.lastX, gesture.lastY] = [sx, sy];
}

// A box moved as a whole; it stays inside the picture.
export function moved([x0, y0, x1, y1], dx, dy) {
  const { width, height } = state.picture;
  dx = Math.min(width - x1, Math.max(-x0, dx));
  dy = Math.min(height - y1, Math.max(-y0, dy));
  return [tenth(x0 + dx), tenth(y0 + dy), tenth(x1 + dx), tenth(y1 + dy)];
}

function resized(box, handle, x, y) {
  const [x0, y0, x1, y1] = box;
  return within([
    handle.includes("w") ? x : x0, handle.includes("n") ? y : y0, handle.includes("e") ? x : x1, handle.includes("s") ? y : y1,
  ]);
}

const large = ([x0, y0, x1, y1]) => x1 - x0 >= LEAST && y1 - y0 >= LEAST;

// Show a box where it is being moved to, and the mask that it would have.
export function shift(one, box) {
  one.movedTo = box;
  if (one.source !== "brush" && large(box)) {
    one.trying = true;
    tryMask(one, box, one.threshold);
  }
  paint();
}

export function settle(one) {
  const box = one.movedTo;
  stopTrying();
  one.trying = false;
  if (!box || !large(box) || box.every((value, i) => value === one.box[i])) {
    delete one.movedTo;
    delete one.tried;
    paint();
    return;
  }
  one.box = box;
  delete one.movedTo;
  move(one, box);
}

function finish(event) {
  pointers.delete(event.pointerId);
  if (pinch) {
    if (pointers.size < 2) pinch = null;
    return;
  }
  const done = gesture;
  gesture = null;
  if (!done) return;
  if (done.kind === "stroke") endStroke(done);
  else if (done.kind === "create") {
    const box = making.box;
    if (!done.begun) select(objectAt(done.x, done.y)?.id ?? 0);
    making.box = null;
    if (box && large(box)) {
      making.sent.add(box);
      create(box).finally(() => { making.sent.delete(box); paint(); });
    }
  } else if (done.kind === "move" || done.kind === "resize") {
    if (done.begun) settle(done.one);
    else select(done.one.id);
  } else if (done.clears && !done.begun) select(0);
  setCursor(cursor.x, cursor.y);
  paint();
}
canvas.addEventListener("pointerup", finish);
canvas.addEventListener("pointercancel", (event) => {
  abandon();
  finish(event);
});
canvas.addEventListener("pointerleave", () => {
  cursor.inside = false;
  if (state.hovered) {
    state.hovered = 0;
    emit("hover");
  }
  paint();
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

// Let go of what the pointer was doing, and change nothing.
export function abandon() {
  const was = gesture;
  gesture = null;
  making.box = making.line = null;
  stopTrying();
  if (!was) return false;
  if (was.one) {
    delete was.one.movedTo;
    delete was.one.tried;
    was.one.trying = false;
  }
  if (was.kind === "stroke") unshow(was.one.id);
  paint();
  return true;
}

// What a hand began on one picture is not done to the next.
on("picture", () => {
  abandon();
  making.sent.clear();
});

function startPinch() {
  abandon();
  pinch = spread();
}

function spread() {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return { x: (ax + bx) / 2, y: (ay + by) / 2, far: Math.max(20, Math.hypot(ax - bx, ay - by)) };
}

function movePinch() {
  if (pointers.size < 2) return;
  const now = spread();
  pan(now.x - pinch.x, now.y - pinch.y);
  zoom(now.far / pinch.far, now.x, now.y);
  pinch = now;
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [x, y] = place(event);
  const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
  if (event.shiftKey) pan(-(event.deltaX || event.deltaY) * lines, 0);
  else zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * (event.ctrlKey ? 0.01 : 0.0018)), x, y);
}, { passive: false });

// The brush

function startStroke(event, base) {
  let one = selected();
  if (!one) {
    one = objectAt(base.x, base.y);
    if (!one) {
      emit("told", "Select an object first: the brush changes its mask.");
      return;
    }
    select(one.id);
  }
  if (one.counts === null) {
    emit("told", "Its mask is still being drawn.");
    return;
  }
  if (!state.masksShown) { // nobody draws what cannot be seen
    state.masksShown = true;
    emit("shown");
  }
  const erasing = (state.tool === "erase") !== (event.button === 2 || event.button === 5 || event.altKey);
  const mask = maskOf(one).mask;
  gesture = { kind: "stroke", one, value: erasing ? 0 : 1, mask: { ...mask, bits: mask.bits.slice() }, ...base };
  if (event.shiftKey) making.line = [[base.x, base.y]]; // around what is to be filled, or cleared
  else moveStroke(base.x, base.y);
}

function moveStroke(x, y) {
  if (making.line) return making.line.push([x, y]);
  const radius = state.brush / 2, { width, height } = state.picture;
  const reach = [
    Math.min(gesture.x, x) - radius, Math.min(gesture.y, y) - radius, Math.max(gesture.x, x) + radius, Math.max(gesture.y, y) + radius,
  ];
  if (gesture.value) {
    const { mask } = gesture;
    const fits = mask.w && reach[0] >= mask.x && reach[1] >= mask.y && reach[2] <= mask.x + mask.w && reach[3] <= mask.y + mask.h;
    const room = fits ? 0 : 128;
    if (!fits) gesture.mask = grown(mask, reach[0] - room, reach[1] - room, reach[2] + room, reach[3] + room, width, height);
  }
  const dirty = stroke(gesture.mask, gesture.x, gesture.y, x, y, radius, gesture.value);
  [gesture.x, gesture.y] = [x, y];
  show(gesture.one.id, gesture.mask, dirty);
}

function endStroke({ one, mask, value }) {
  const { width, height } = state.picture, { line } = making;
  making.line = null;
  if (line) {
    if (line.length < 3) return;
    const across = line.map(([x]) => x), down = line.map(([, y]) => y);
    if (value) mask = grown(mask, Math.min(...across), Math.min(...down), Math.max(...across), Math.max(...down), width, height);
    fillInside(mask, line, value);
    show(one.id, mask);
  }
  setMask(one, encode(mask, width, height));
}

// What the pointer says of what it would do here.
const SHAPES = { nw: "nwse-resize", se: "nwse-resize", ne: "nesw-resize", sw: "nesw-resize", n: "ns-resize", s: "ns-resize", e: "ew-resize", w: "ew-resize" };

export function setCursor(sx = cursor.x, sy = cursor.y) {
  let shape = "default";
  if (gesture?.kind === "pan" && gesture.begun) shape = "grabbing";
  else if (held.space || state.tool === "hand") shape = "grab";
  else if (state.tool === "brush" || state.tool === "erase") shape = "none";
  else {
    const handle = handleAt(sx, sy, false);
    if (handle) shape = SHAPES[handle];
    else if (state.tool === "box") shape = "crosshair";
    else if (state.picture && objectAt(...toPicture(sx, sy))) shape = "move";
  }
  canvas.style.cursor = shape;
}

export const centreBox = () => {
  const [x0, y0] = toPicture(view.width * 0.375, view.height * 0.375), [x1, y1] = toPicture(view.width * 0.625, view.height * 0.625);
  return within([x0, y0, x1, y1]);
};
