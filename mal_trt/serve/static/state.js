// What the page knows, and who wants to hear of changes. Modules change it and say what they changed.

export const state = {
  about: null, // answer of /workspace
  ids: [], // pictures in the order shown
  shown: "all",
  sort: "folder",
  search: "",
  at: 0, // number of the picture that was opened last, whether it can be shown or not
  problem: "", // why it cannot
  picture: null, // {id, name, width, height, objects, step, undo, redo, looked}
  bitmap: null, // its pixels
  selected: 0, // number of an object, 0: none
  hovered: 0,
  tool: "select",
  category: 1, // of the next box
  brush: 24, // diameter, picture pixels
  masksShown: true,
  alone: false, // only the selected object is shown
};

const listeners = new Map();

export function on(events, listener) {
  for (const event of events.split(" ")) {
    if (!listeners.has(event)) listeners.set(event, []);
    listeners.get(event).push(listener);
  }
}

export function emit(event, ...details) {
  for (const listener of listeners.get(event) ?? []) listener(...details);
}

export const selected = () => state.picture?.objects.find((one) => one.id === state.selected) ?? null;

export function select(id) {
  if (state.selected === id) return;
  state.selected = id;
  emit("selection");
}

export const categoryName = (number) => state.about?.categories.find((one) => one.number === number)?.name ?? "";

// The colours of the overlays that `mal-trt label` draws.
const PALETTE = [
  [0, 184, 255], [255, 56, 92], [255, 190, 11], [131, 82, 255], [6, 214, 120], [255, 112, 20],
  [255, 71, 209], [0, 214, 201], [164, 222, 2], [64, 106, 255], [255, 133, 133], [186, 120, 60],
];
export const colourOf = (id) => PALETTE[(id - 1) % PALETTE.length];
export const css = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;
