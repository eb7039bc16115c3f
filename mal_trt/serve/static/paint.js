// Draws the picture, its masks and boxes into the canvas, once a frame at most. What no hand moves, all but the selected
// object, is kept as a layer, so that a brush among hundreds of objects draws one of them.
import { canvasOf, maskOf, outlineOf } from "./masks.js";
import { categoryName, colourOf, css, on, selected, state } from "./state.js";
import { resize, toScreen, view } from "./viewport.js";

const canvas = document.getElementById("canvas");
const layer = document.createElement("canvas");
const [onScreen, onLayer] = [canvas, layer].map((one) => one.getContext("2d"));
let context = onScreen; // what is drawn to
export const cursor = { x: 0, y: 0, inside: false }; // CSS pixels
// XYXY of the box that is being drawn, and of those without an answer; places that a line goes through.
export const making = { box: null, sent: new Set(), line: null };
let asked = false;
let stale = true; // the layer

export function paint() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

new ResizeObserver(() => {
  const { clientWidth, clientHeight } = canvas, ratio = devicePixelRatio || 1;
  layer.width = canvas.width = Math.max(1, Math.round(clientWidth * ratio));
  layer.height = canvas.height = Math.max(1, Math.round(clientHeight * ratio));
  resize(clientWidth, clientHeight);
  stale = true;
  draw();
}).observe(canvas);
on("view selection picture objects about shown", () => {
  stale = true;
  paint();
});
on("tried", (one) => {
  stale ||= one !== selected();
  paint();
});
on("tool hover", paint);

export const HANDLE = 5;

// Corners and sides of a box on the screen, by what they move.
export function handles([x0, y0, x1, y1]) {
  const mx = (x0 + x1) / 2, my = (y0 + y1) / 2;
  const places = [
    ["nw", x0, y0], ["ne", x1, y0], ["se", x1, y1], ["sw", x0, y1], ["n", mx, y0], ["e", x1, my], ["s", mx, y1], ["w", x0, my],
  ];
  return places.map(([name, x, y]) => [name, ...toScreen(x, y)]);
}

const size = (one) => (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]);

function draw() {
  const ratio = devicePixelRatio || 1;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!state.picture || !state.bitmap) return;
  const now = selected(), hovered = state.picture.objects.find((one) => one !== now && one.id === state.hovered);
  if (stale) drawLayer(ratio, now);
  context.drawImage(layer, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (hovered) drawBox(hovered, false);
  if (now) {
    if (state.masksShown) drawMask(now, true, ratio);
    drawBox(now, true);
    if (state.tool !== "brush" && state.tool !== "erase") drawHandles(now);
  }
  for (const one of [hovered, now]) if (one) drawName(one);
  for (const box of [...making.sent, making.box]) if (box) drawMaking(() => rectangle(box));
  if (making.line) drawMaking(() => drawLine(making.line));
  drawCursor();
}

function drawLayer(ratio, now) {
  stale = false;
  context = onLayer;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  const { width, height } = state.picture;
  context.imageSmoothingEnabled = view.scale < 3;
  context.imageSmoothingQuality = "high";
  context.drawImage(state.bitmap, view.x, view.y, width * view.scale, height * view.scale);
  const others = now && state.alone ? [] : state.picture.objects.filter((one) => one !== now).sort((a, b) => size(b) - size(a));
  if (state.masksShown) for (const one of others) drawMask(one, false, ratio);
  for (const one of others) drawBox(one, false);
  context = onScreen;
}

function drawMask(one, strong, ratio) {
  const found = maskOf(one);
  if (!found.mask.w || (one.state === "rejected" && !strong)) return;
  const { x, y, w, h } = found.mask;
  const [left, top] = toScreen(x, y);
  if (left > view.width || top > view.height || left + w * view.scale < 0 || top + h * view.scale < 0) return;
  context.globalAlpha = strong ? 1 : 0.75;
  context.imageSmoothingEnabled = view.scale < 1;
  context.drawImage(canvasOf(found), left, top, w * view.scale, h * view.scale);
  context.globalAlpha = 1;
  if (found.brushed) return;
  context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  context.strokeStyle = css(found.colour);
  context.lineWidth = (strong ? 2 : 1.3) / view.scale;
  context.lineJoin = "miter"; // round ones take twice as long, and look the same
  context.lineCap = "square";
  context.stroke(outlineOf(found));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function rectangle([x0, y0, x1, y1]) {
  const [left, top] = toScreen(x0, y0), [right, bottom] = toScreen(x1, y1);
  context.strokeRect(left, top, right - left, bottom - top);
}

function drawBox(one, strong) {
  const shown = one.movedTo ?? one.box;
  context.setLineDash(one.state === "rejected" ? [3, 5] : []);
  if (strong) {
    context.strokeStyle = "rgb(0 0 0 / .55)";
    context.lineWidth = 3.5;
    rectangle(shown);
  }
  context.strokeStyle = css(colourOf(one.id), strong ? 1 : one.id === state.hovered ? 0.95 : 0.6);
  context.lineWidth = strong ? 1.8 : 1.2;
  rectangle(shown);
  context.setLineDash([]);
}

function drawHandles(one) {
  context.lineWidth = 1.5;
  context.strokeStyle = "rgb(0 0 0 / .75)";
  for (const [name, x, y] of handles(one.movedTo ?? one.box)) {
    const r = name.length === 2 ? HANDLE : HANDLE - 1.5;
    context.fillStyle = "#fff";
    context.beginPath();
    context.rect(x - r, y - r, 2 * r, 2 * r);
    context.fill();
    context.stroke();
  }
}

function drawName(one) {
  const [x0, y0] = toScreen(...(one.movedTo ?? one.box));
  const score = one.score === null ? "" : `  ${one.score.toFixed(2).replace(/^0/, "")}`;
  const text = `${categoryName(one.category)}${score}`;
  context.font = `600 13px ${getComputedStyle(canvas).fontFamily}`;
  const width = Math.min(context.measureText(text).width, 260) + 12;
  const x = Math.max(2, Math.min(x0, view.width - width - 2)), y = y0 - 25 < 2 ? y0 + 4 : y0 - 25;
  context.fillStyle = css(colourOf(one.id), 0.95);
  context.beginPath();
  context.roundRect(x, y, width, 21, 4);
  context.fill();
  const [r, g, b] = colourOf(one.id);
  context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#06131a" : "#fff";
  context.fillText(text, x + 6, y + 15, 260);
}

function drawMaking(lines) {
  context.lineWidth = 3.5;
  context.strokeStyle = "rgb(0 0 0 / .5)";
  lines();
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.setLineDash([6, 4]);
  lines();
  context.setLineDash([]);
}

function drawLine(places) {
  context.beginPath();
  for (const place of places) context.lineTo(...toScreen(...place));
  context.closePath();
  context.stroke();
}

function drawCursor() {
  if (!cursor.inside) return;
  if (state.tool === "brush" || state.tool === "erase") {
    const radius = (state.brush / 2) * view.scale;
    for (const [width, colour] of [[3, "rgb(0 0 0 / .6)"], [1.4, state.tool === "brush" ? "#fff" : "#ff8a80"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      context.arc(cursor.x, cursor.y, Math.max(1.5, radius), 0, 2 * Math.PI);
      context.stroke();
    }
  } else if (state.tool === "box" && !making.box) {
    context.lineWidth = 1;
    for (const [dash, colour] of [[0, "rgb(0 0 0 / .45)"], [4, "rgb(255 255 255 / .9)"]]) {
      context.setLineDash([4, 4]);
      context.lineDashOffset = dash;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(0, cursor.y);
      context.lineTo(view.width, cursor.y);
      context.moveTo(cursor.x, 0);
      context.lineTo(cursor.x, view.height);
      context.stroke();
    }
    context.setLineDash([]);
    context.lineDashOffset = 0;
  }
}
