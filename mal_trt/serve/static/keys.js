// Keys, and the page that lists them.
import { $, make } from "./dom.js";
import * as panel from "./panel.js";
import { emit, select, selected, state } from "./state.js";
import { abandon, centreBox, held, moved, settle, setCursor, shift, within } from "./tools.js";
import { fit, reveal, zoom } from "./viewport.js";
import * as work from "./work.js";

const SETTLE = 450; // milliseconds after the last arrow key

export function setTool(tool) {
  state.tool = tool;
  emit("tool");
  setCursor();
}

export function setMasksShown(shown) {
  state.masksShown = shown;
  emit("shown");
}

function showAlone() {
  state.alone = !state.alone;
  emit("told", state.alone ? "Only the selected object is shown; S shows all." : "All objects are shown.");
  emit("shown");
}

export function setBrush(size) {
  state.brush = Math.min(400, Math.max(1, Math.round(size)));
  emit("tool");
}

async function newBox() {
  if (!state.picture) return;
  setTool("select");
  await work.create(centreBox());
}

let nudged = null;
let timer = 0;

function nudge(dx, dy, size) {
  const one = selected();
  if (!one) return false;
  const box = one.movedTo ?? one.box;
  const [x0, y0, x1, y1] = box;
  const to = size ? within([x0, y0, Math.max(x0 + 2, x1 + dx), Math.max(y0 + 2, y1 + dy)]) : moved(box, dx, dy);
  nudged = one;
  shift(one, to);
  reveal(to);
  clearTimeout(timer);
  timer = setTimeout(endNudge, SETTLE);
  return true;
}

// Send what the arrow keys did before anything else is done.
export function endNudge() {
  clearTimeout(timer);
  const one = nudged;
  nudged = null;
  if (one?.movedTo) settle(one);
}

const brushStep = () => Math.max(1, Math.round(state.brush * 0.15));

// Keys, what they do, and how both are said.
const KEYS = [
  ["v", "V", "Select and move", () => setTool("select")],
  ["b", "B", "Draw a box", () => setTool("box")],
  ["p", "P", "Brush: add to the mask", () => setTool("brush")],
  ["e", "E", "Eraser: take from the mask", () => setTool("erase")],
  ["Shift", "Shift + drag", "With these: all that the line goes around", null],
  ["[", "[", "Smaller brush", () => setBrush(state.brush - brushStep())],
  ["]", "]", "Larger brush", () => setBrush(state.brush + brushStep())],
  [" ", "Space + drag", "Move the picture", null],
  ["n", "N", "New box in the middle", newBox],
  ["Arrow", "← ↑ → ↓", "Move the box (Shift: by 10)", null],
  ["AltArrow", "Alt + ← ↑ → ↓", "Resize the box", null],
  [",", ",", "Previous object", () => work.stepObject(-1)],
  [".", ".", "Next object", () => work.stepObject(1)],
  ["1", "1 … 9", "Class", null],
  ["c", "C", "Class by its name, or a new one", () => $("class-name").focus()],
  ["F2", "F2", "Rename the class", panel.renameClass],
  ["{", "Shift + [", "Lower threshold: larger mask", () => panel.nudgeThreshold(-0.02)],
  ["}", "Shift + ]", "Higher threshold: smaller mask", () => panel.nudgeThreshold(0.02)],
  ["a", "A", "Accept the object", panel.accept],
  ["x", "X", "Reject the object", panel.reject],
  ["Enter", "Enter", "Accept all, go to the next picture", work.acceptAll],
  ["r", "R", "Let the model draw it again", panel.redraw],
  ["Delete", "Del", "Delete the object", panel.remove],
  ["Backspace", "", "", panel.remove],
  ["PageUp", "Page up, K", "Previous picture", () => work.step(-1)],
  ["k", "", "", () => work.step(-1)],
  ["PageDown", "Page down, J", "Next picture", () => work.step(1)],
  ["j", "", "", () => work.step(1)],
  ["z+ctrl", "Ctrl + Z", "Undo", work.undo],
  ["z+ctrl+shift", "Ctrl + Shift + Z", "Redo", work.redo],
  ["y+ctrl", "", "", work.redo],
  ["+", "+", "Larger", () => zoom(1.25)],
  ["=", "", "", () => zoom(1.25)],
  ["-", "−", "Smaller", () => zoom(0.8)],
  ["f", "F", "Whole picture", fit],
  ["h", "H", "Masks on and off", () => setMasksShown(!state.masksShown)],
  ["s", "S", "Only the selected object", showAlone],
  ["Escape", "Esc", "Let go", () => abandon() || select(0)],
  ["?", "?", "This page", () => $("help").showModal()],
];
const ACTIONS = new Map(KEYS.filter(([, , , action]) => action).map(([key, , , action]) => [key, action]));
// What goes on while its key is held. Held, Enter would accept pictures that nobody has seen.
const GO_ON = new Set(["[", "]", "{", "}", ",", ".", "+", "=", "-", "j", "k", "PageUp", "PageDown"]);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

$("keys").append(
  ...KEYS.filter(([, shown]) => shown).map(([, shown, said]) => make("div", {}, make("span", { textContent: said }), make("kbd", { textContent: shown }))),
);

const typing = (target) => target.closest("input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea, dialog");

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || typing(event.target) || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const graph = event.getModifierState("AltGraph"); // with it many keyboards write [ and {
  const control = (event.ctrlKey || event.metaKey) && !graph;
  if (control) {
    const action = ACTIONS.get(`${key}+ctrl${event.shiftKey ? "+shift" : ""}`);
    if (action) {
      event.preventDefault();
      endNudge();
      action();
    }
    return;
  }
  if (key in ARROWS) {
    const step = event.shiftKey ? 10 : 1;
    if (!event.target.closest("input, select") && nudge(ARROWS[key][0] * step, ARROWS[key][1] * step, event.altKey)) event.preventDefault();
    return;
  }
  if (event.altKey && !graph) return;
  if (key === " ") {
    if (event.target.closest("button, input")) return; // it presses them
    event.preventDefault();
    held.space = true;
    setCursor();
    return;
  }
  if (event.repeat && !GO_ON.has(key)) return;
  if (key === "Enter" && event.target.closest("button, a, input")) return;
  if (key === "Escape") emit("drawers");
  if (/^[1-9]$/.test(key)) {
    endNudge();
    panel.chooseClass(Number(key) - 1);
    return;
  }
  const action = ACTIONS.get(key);
  if (!action) return;
  event.preventDefault();
  endNudge();
  action();
});

addEventListener("keyup", (event) => {
  if (event.key !== " ") return;
  held.space = false;
  setCursor();
});
addEventListener("blur", () => {
  held.space = false;
});
