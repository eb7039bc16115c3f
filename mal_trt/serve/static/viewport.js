// Where the picture lies on the screen: screen = picture * scale + offset, in CSS pixels of the canvas.
import { emit, state } from "./state.js";

const MOST = 64;
const MARGIN = 24;
// What the tools at the side and the buttons below or above cover.
const covered = () => (view.width > 700 ? { left: 56, top: 0, bottom: 48 } : { left: 0, top: 48, bottom: 52 });
export const view = { scale: 1, x: 0, y: 0, width: 0, height: 0, fitted: true };

const least = () => Math.min(1, fitScale()) * 0.5;

function fitScale() {
  if (!state.picture) return 1;
  const { width, height } = state.picture;
  const { left, top, bottom } = covered(), margin = view.width > 700 ? MARGIN : MARGIN / 3;
  const across = Math.max(50, view.width - left - 2 * margin), down = Math.max(50, view.height - top - bottom - 2 * margin);
  return Math.min(across / width, down / height, 8);
}

export function fit() {
  if (!state.picture) return;
  view.scale = fitScale();
  const { left, top, bottom } = covered();
  view.x = (view.width + left - state.picture.width * view.scale) / 2;
  view.y = (view.height + top - bottom - state.picture.height * view.scale) / 2;
  view.fitted = true;
  emit("view");
}

export function resize(width, height) {
  const [dx, dy] = [(width - view.width) / 2, (height - view.height) / 2];
  Object.assign(view, { width, height });
  if (view.fitted) fit();
  else pan(dx, dy);
}

export function pan(dx, dy) {
  if (!state.picture) return;
  // Some of the picture stays on the screen.
  const { width, height } = state.picture, keep = 60;
  view.x = Math.min(view.width - keep, Math.max(keep - width * view.scale, view.x + dx));
  view.y = Math.min(view.height - keep, Math.max(keep - height * view.scale, view.y + dy));
  if (dx || dy) view.fitted = false;
  emit("view");
}

export function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const scale = Math.min(MOST, Math.max(least(), view.scale * factor));
  const real = scale / view.scale;
  view.x = x - (x - view.x) * real;
  view.y = y - (y - view.y) * real;
  view.scale = scale;
  view.fitted = false;
  pan(0, 0);
}

export const toPicture = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
export const toScreen = (x, y) => [x * view.scale + view.x, y * view.scale + view.y];

// Pan so that a box can be seen.
export function reveal([x0, y0, x1, y1]) {
  const [left, top] = toScreen(x0, y0), [right, bottom] = toScreen(x1, y1);
  if (left >= 0 && top >= 0 && right <= view.width && bottom <= view.height) return;
  if (view.fitted) return;
  pan(view.width / 2 - (left + right) / 2, view.height / 2 - (top + bottom) / 2);
}
