// What is drawn of each mask: its pixels in a canvas of their own, and its outline as a path along the pixels' edges.
import { EMPTY, decode } from "./rle.js";
import { colourOf, state } from "./state.js";

const FILL = 92;
const kept = new Map(); // object -> {counts, mask, canvas, outline, colour}

export function forget() {
  kept.clear();
}

// The mask of an object as it is shown: what was sent last, or what is being tried out.
export function maskOf(one) {
  const counts = one.tried ?? one.counts;
  let found = kept.get(one.id);
  if (found && (found.counts === counts || found.brushed)) return found;
  found = { counts, mask: counts === null ? EMPTY : decode(counts, state.picture.height), colour: colourOf(one.id) };
  kept.set(one.id, found);
  return found;
}

// Keep what is drawn of these objects, and a brush's mask as long as it waits for its answer.
export function keepOnly(objects, waits) {
  const ids = new Set(objects.map((one) => one.id));
  for (const [id, found] of kept) {
    if (!waits(id)) found.brushed = false;
    if (!ids.has(id)) kept.delete(id);
  }
}

// Let a brush's mask be shown in place of the one that was sent.
export function show(id, mask, dirty = null) {
  const found = kept.get(id);
  if (!found) return; // deleted elsewhere meanwhile
  found.brushed = true;
  found.outline = null;
  const same = found.mask === mask && found.canvas;
  found.mask = mask;
  if (same && dirty) fill(found, dirty);
  else found.canvas = null;
}

// Forget a stroke that came to nothing.
export function unshow(id) {
  kept.delete(id);
}

export function canvasOf(found) {
  if (!found.canvas && found.mask.w) {
    found.canvas = new OffscreenCanvas(found.mask.w, found.mask.h);
    const { x, y, w, h } = found.mask;
    fill(found, { x0: x, y0: y, x1: x + w, y1: y + h });
  }
  return found.canvas;
}

function fill(found, { x0, y0, x1, y1 }) {
  const { mask, colour } = found;
  if (x1 <= x0 || y1 <= y0) return;
  const image = new ImageData(x1 - x0, y1 - y0);
  const words = new Uint32Array(image.data.buffer);
  const word = (FILL << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
  for (let y = y0, at = 0; y < y1; y += 1) {
    const row = (y - mask.y) * mask.w - mask.x;
    for (let x = x0; x < x1; x += 1, at += 1) if (mask.bits[row + x]) words[at] = word;
  }
  found.canvas.getContext("2d").putImageData(image, x0 - mask.x, y0 - mask.y);
}

// Row by row, as the pixels lie: a picture of 60 megapixels would take seconds column by column.
export function outlineOf(found) {
  if (found.outline) return found.outline;
  const { x, y, w, h, bits } = found.mask;
  const path = new Path2D(), none = new Uint8Array(w);
  const begun = new Int32Array(w + 1).fill(-1); // first rows of the edges at the left of each column
  for (let row = 0, above = none, now; row <= h; row += 1, above = now) {
    now = row < h ? bits.subarray(row * w, (row + 1) * w) : none;
    for (let column = 0, from = -1, left = 0; column <= w; column += 1) {
      const here = column < w ? now[column] : 0;
      const under = column < w && here !== above[column];
      if (under && from < 0) from = column;
      if (!under && from >= 0) {
        path.moveTo(x + from, y + row);
        path.lineTo(x + column, y + row);
        from = -1;
      }
      if (here !== left && begun[column] < 0) begun[column] = row;
      if (here === left && begun[column] >= 0) {
        path.moveTo(x + column, y + begun[column]);
        path.lineTo(x + column, y + row);
        begun[column] = -1;
      }
      left = here;
    }
  }
  found.outline = path;
  return path;
}
