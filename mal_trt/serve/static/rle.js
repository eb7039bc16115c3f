// COCO's run lengths, column by column, to a mask in its smallest window and back.
// A mask: {x, y, w, h, bits}, bits one byte a pixel, row by row.

export const EMPTY = { x: 0, y: 0, w: 0, h: 0, bits: new Uint8Array(0) };

function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, digit = 0, more = true;
    while (more) {
      const code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << (5 * digit++);
      more = (code & 32) !== 0;
      if (!more && code & 16) value |= -1 << (5 * digit);
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

export function decode(counts, height) {
  const runs = runsOf(counts);
  const pieces = []; // column, first row, last row (exclusive)
  let index = 0, x0 = Infinity, x1 = -1, y0 = Infinity, y1 = 0;
  for (let i = 0; i < runs.length; i += 1) {
    let left = runs[i];
    while (i % 2 && left > 0) {
      const column = Math.floor(index / height), row = index - column * height;
      const length = Math.min(left, height - row);
      pieces.push(column, row, row + length);
      if (column < x0) x0 = column;
      if (column > x1) x1 = column;
      if (row < y0) y0 = row;
      if (row + length > y1) y1 = row + length;
      index += length;
      left -= length;
    }
    if (i % 2 === 0) index += left;
  }
  if (x1 < 0) return EMPTY;
  const w = x1 - x0 + 1, h = y1 - y0, bits = new Uint8Array(w * h);
  for (let i = 0; i < pieces.length; i += 3) {
    for (let row = pieces[i + 1] - y0; row < pieces[i + 2] - y0; row += 1) bits[row * w + pieces[i] - x0] = 1;
  }
  return { x: x0, y: y0, w, h, bits };
}

export function encode(mask, width, height) {
  const runs = [];
  let end = 0; // where the last run of the object ended
  for (let column = 0; column < mask.w; column += 1) {
    const base = (mask.x + column) * height + mask.y;
    for (let row = 0; row < mask.h; row += 1) {
      if (!mask.bits[row * mask.w + column]) continue;
      const first = row;
      while (row < mask.h && mask.bits[row * mask.w + column]) row += 1;
      const start = base + first;
      if (runs.length && start === end) runs[runs.length - 1] += row - first;
      else runs.push(start - end, row - first);
      end = base + row;
    }
  }
  const rest = width * height - end;
  if (rest) runs.push(rest);
  return runs;
}

export const holds = (mask, x, y) => {
  const column = Math.floor(x) - mask.x, row = Math.floor(y) - mask.y;
  return column >= 0 && row >= 0 && column < mask.w && row < mask.h && mask.bits[row * mask.w + column] === 1;
};

// The mask with room for a rectangle of the picture, which is cut to the picture's size.
export function grown(mask, x0, y0, x1, y1, width, height) {
  x0 = Math.max(0, Math.floor(x0)); y0 = Math.max(0, Math.floor(y0));
  x1 = Math.min(width, Math.ceil(x1)); y1 = Math.min(height, Math.ceil(y1));
  if (x1 <= x0 || y1 <= y0) return mask;
  const none = mask.w === 0;
  const left = none ? x0 : Math.min(mask.x, x0), top = none ? y0 : Math.min(mask.y, y0);
  const right = none ? x1 : Math.max(mask.x + mask.w, x1), bottom = none ? y1 : Math.max(mask.y + mask.h, y1);
  if (!none && left === mask.x && top === mask.y && right === mask.x + mask.w && bottom === mask.y + mask.h) return mask;
  const w = right - left, h = bottom - top, bits = new Uint8Array(w * h);
  for (let row = 0; row < mask.h; row += 1) {
    bits.set(mask.bits.subarray(row * mask.w, (row + 1) * mask.w), (row + mask.y - top) * w + mask.x - left);
  }
  return { x: left, y: top, w, h, bits };
}

// Set or clear every pixel whose centre is within `radius` of the line from (ax, ay) to (bx, by); the mask has room.
export function stroke(mask, ax, ay, bx, by, radius, value) {
  const x0 = Math.max(mask.x, Math.floor(Math.min(ax, bx) - radius));
  const y0 = Math.max(mask.y, Math.floor(Math.min(ay, by) - radius));
  const x1 = Math.min(mask.x + mask.w, Math.ceil(Math.max(ax, bx) + radius));
  const y1 = Math.min(mask.y + mask.h, Math.ceil(Math.max(ay, by) + radius));
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
  for (let y = y0; y < y1; y += 1) {
    for (let x = x0; x < x1; x += 1) {
      const px = x + 0.5 - ax, py = y + 0.5 - ay;
      const share = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      const ex = px - share * dx, ey = py - share * dy;
      if (ex * ex + ey * ey <= radius * radius) mask.bits[(y - mask.y) * mask.w + x - mask.x] = value;
    }
  }
  return { x0, y0, x1, y1 };
}

// Set or clear every pixel whose centre is inside the line through these places, closed, by its winding; the mask has
// room.
export function fillInside(mask, places, value) {
  const rows = places.map(([, y]) => y);
  const y0 = Math.max(mask.y, Math.floor(Math.min(...rows))), y1 = Math.min(mask.y + mask.h, Math.ceil(Math.max(...rows)));
  for (let y = y0; y < y1; y += 1) {
    const middle = y + 0.5, crossings = [];
    places.forEach(([bx, by], i) => {
      const [ax, ay] = places.at(i - 1);
      if (ay <= middle !== by <= middle) crossings.push([ax + ((middle - ay) / (by - ay)) * (bx - ax), ay < by ? 1 : -1]);
    });
    crossings.sort(([a], [b]) => a - b);
    let winding = 0;
    crossings.forEach(([x, by], i) => {
      winding += by;
      if (!winding) return;
      const from = Math.max(mask.x, Math.ceil(x - 0.5)), to = Math.min(mask.x + mask.w, Math.ceil(crossings[i + 1][0] - 0.5));
      const row = (y - mask.y) * mask.w - mask.x;
      if (to > from) mask.bits.fill(value, row + from, row + to);
    });
  }
}
