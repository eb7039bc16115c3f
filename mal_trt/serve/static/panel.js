// The right side: classes, the objects of the picture, and what can be done with the one that is selected.
import { $, icon, make, plural, press } from "./dom.js";
import { categoryName, colourOf, css, emit, on, select, selected, state } from "./state.js";
import { reveal } from "./viewport.js";
import * as work from "./work.js";

const LOW = 0.6; // scores below it stand out
const SOURCES = { model: "by the model", brush: "by brush", file: "from the file" };

let named = ""; // the classes as they were last shown

function showClasses() {
  const classes = state.about?.categories ?? [], names = JSON.stringify(classes.map(({ name }) => name));
  if (names !== named) { // else a second click would find other elements
    named = names;
    $("chips").replaceChildren(...classes.map(chip));
    $("class-names").replaceChildren(...classes.map(({ name }) => make("option", { value: name })));
  }
  classes.forEach(({ number }, place) => {
    const one = $("chips").children[place], chosen = number === (selected()?.category ?? state.category);
    if (chosen && one.getAttribute("aria-pressed") !== "true") one.scrollIntoView({ block: "nearest" });
    press(one, chosen);
  });
  $("class-hint").textContent = selected() ? "of the selected object" : "of the next box";
}

function chip({ name }, place) {
  const one = make("button", { className: "chip", type: "button", title: `${name} (twice: rename)` }, make("span", { textContent: name }));
  if (place < 9) one.prepend(make("kbd", { textContent: String(place + 1) }));
  one.addEventListener("click", () => chooseClass(place));
  one.addEventListener("dblclick", renameClass);
  return one;
}

export function chooseClass(place) {
  const one = state.about?.categories[place];
  if (!one) return;
  state.category = one.number;
  const now = selected();
  if (now && now.category !== one.number) work.setCategory(now, one.number);
  work.say(`Class ${one.name}`);
  showClasses();
}

function showObjects() {
  const objects = state.picture?.objects ?? [];
  $("object-count").textContent = objects.length ? String(objects.length) : "";
  const focused = document.activeElement?.closest?.(".thing")?.dataset.id;
  const items = objects.map((one) => {
    const name = categoryName(one.category);
    const swatch = make("span", { className: "colour" });
    swatch.style.background = css(colourOf(one.id));
    const score = make("span", { className: "score", textContent: one.counts === null ? "…" : one.score === null ? "" : one.score.toFixed(2).replace(/^0/, "") });
    score.classList.toggle("low", one.score !== null && one.score < LOW);
    const button = make("button", { type: "button" }, swatch, make("span", { className: "name", textContent: name }), score);
    if (one.state !== "new") button.append(icon(one.state === "accepted" ? "check" : "cross", "mark-done"));
    const said = one.state === "new" ? "not decided" : one.state;
    button.setAttribute("aria-label", `${name}, score ${work.scoreText(one)}, ${said}`);
    press(button, one.id === state.selected);
    button.addEventListener("click", () => {
      select(one.id === state.selected ? 0 : one.id);
      if (state.selected) reveal(one.box);
    });
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && hover(one.id));
    button.addEventListener("pointerleave", () => hover(0));
    return make("li", { className: "thing", data: { id: one.id, state: one.state, selected: one.id === state.selected } }, button);
  });
  if (!items.length && state.picture) items.push(make("li", { className: "nothing", textContent: "No objects yet. Draw a box around one." }));
  $("things").replaceChildren(...items);
  if (focused) $("things").querySelector(`[data-id="${focused}"] button`)?.focus();
  $("undo").disabled = !state.picture?.undo;
  $("redo").disabled = !state.picture?.redo;
  $("accept-all").disabled = !state.picture;
  for (const id of ["previous", "next"]) $(id).disabled = !state.ids.length;
}

function hover(id) {
  state.hovered = id;
  emit("hover");
}

function showInspector() {
  const one = selected();
  $("inspector").hidden = !one;
  if (!one) return;
  $("inspector-title").textContent = categoryName(one.category);
  $("inspector-source").textContent = `${SOURCES[one.source]}${one.area === null ? "" : `, ${one.area.toLocaleString("en")} px`}`;
  const slider = $("threshold");
  slider.disabled = one.source === "brush";
  slider.title = slider.disabled ? "A mask drawn by hand has no threshold; R lets the model draw it again" : "";
  showThreshold(one.threshold ?? usual(one));
  press($("accept"), one.state === "accepted");
  press($("reject"), one.state === "rejected");
}

function showThreshold(value) {
  const slider = $("threshold"), now = selected();
  slider.value = value ?? 0.5;
  $("threshold-text").textContent = now?.source === "brush" ? "by hand" : value === null ? "as the model" : Number(value).toFixed(2);
}

// The model's own threshold for a box of this size.
function usual(one) {
  const [x0, y0, x1, y1] = one.box, area = (x1 - x0) * (y1 - y0), all = state.about.thresholds;
  return all && all[area <= 32 ** 2 ? 0 : area <= 96 ** 2 ? 1 : 2];
}

$("threshold").addEventListener("input", (event) => {
  const one = selected(), value = Number(event.target.value);
  if (!one) return;
  showThreshold(value);
  one.trying = true;
  work.tryMask(one, one.box, value);
});
$("threshold").addEventListener("change", (event) => commitThreshold(Number(event.target.value)));

function commitThreshold(value) {
  const one = selected();
  if (!one) return;
  work.stopTrying();
  one.trying = false;
  work.setThreshold(one, value);
}

export function nudgeThreshold(by) {
  const one = selected();
  if (!one || one.source === "brush") return;
  const value = Math.min(0.98, Math.max(0.02, Math.round(((one.threshold ?? usual(one) ?? 0.5) + by) * 100) / 100));
  commitThreshold(value);
}

const withSelected = (then) => () => {
  const one = selected();
  if (one) then(one);
};
export const accept = withSelected((one) => work.setState(one, "accepted"));
export const reject = withSelected((one) => work.setState(one, "rejected"));
export const redraw = withSelected(work.redraw);
export const remove = withSelected(work.remove);
$("accept").addEventListener("click", accept);
$("reject").addEventListener("click", reject);
$("redraw").addEventListener("click", redraw);
$("delete").addEventListener("click", remove);
$("accept-all").addEventListener("click", work.acceptAll);
$("previous").addEventListener("click", () => work.step(-1));
$("next").addEventListener("click", () => work.step(1));
for (const button of document.querySelectorAll("[data-press]")) {
  button.addEventListener("click", () => $(button.dataset.press).click());
}
// A name that is there chooses its class; keys are for the picture again.
$("class-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("class-name").value.trim();
  $("class-name").value = "";
  $("canvas").focus({ preventScroll: true });
  if (name) work.addCategory(name);
});
$("class-name").addEventListener("keydown", (event) => {
  if (event.key === "Escape") $("canvas").focus({ preventScroll: true });
});

export function renameClass() {
  const number = selected()?.category ?? state.category;
  $("rename-name").value = categoryName(number);
  $("rename").dataset.number = number;
  $("rename").showModal();
  $("rename-name").select();
}
$("rename-form").addEventListener("submit", () => {
  const name = $("rename-name").value.trim();
  if (name) work.renameCategory(Number($("rename").dataset.number), name);
});

function describe() {
  const canvas = $("canvas"), one = selected(), { picture } = state;
  const objects = picture ? plural(picture.objects.length, "object") : "";
  canvas.setAttribute("aria-label", picture ? `${picture.name}, ${objects}${one ? `; selected: ${categoryName(one.category)}` : ""}` : "No picture");
  $("picture-name").textContent = picture ? `${picture.name} · ${picture.width} × ${picture.height}` : "";
}

on("about", showClasses);
on("objects picture order", showObjects);
on("selection", () => {
  showObjects();
  showInspector();
  showClasses();
});
on("objects", showInspector);
on("about", () => {
  showObjects();
  showInspector();
});
on("objects selection picture", describe);
