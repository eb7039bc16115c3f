// Puts the page together: what is said at the top and the sides, uploads, drawers, and the start.
import * as api from "./api.js";
import "./dialogs.js";
import { $, make, plural, press } from "./dom.js";
import { endNudge, setBrush, setMasksShown, setTool } from "./keys.js";
import { refresh } from "./list.js";
import "./paint.js";
import "./panel.js";
import { emit, on, state } from "./state.js";
import "./tools.js";
import { fit, view, zoom } from "./viewport.js";
import * as work from "./work.js";

const POLL = 1500; // milliseconds, while masks are being drawn
const LOOK = 3000; // milliseconds until the next look for changes of others

// Tools and view

for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => {
    endNudge();
    setTool(button.dataset.tool);
  });
}
// A slider for diameters from 1 to 400 pixels, finer where they are small.
const toSlider = (size) => (100 * Math.log(size)) / Math.log(400);
const fromSlider = (value) => 400 ** (value / 100);
$("brush-size").addEventListener("input", (event) => setBrush(fromSlider(Number(event.target.value))));
on("tool", () => {
  for (const button of document.querySelectorAll("[data-tool]")) press(button, button.dataset.tool === state.tool);
  const brush = state.tool === "brush" || state.tool === "erase";
  $("brush-size-row").hidden = !brush;
  $("brush-size").value = toSlider(state.brush);
  $("brush-size-text").textContent = `${state.brush} px`;
});
$("undo").addEventListener("click", work.undo);
$("redo").addEventListener("click", work.redo);
$("zoom-in").addEventListener("click", () => zoom(1.25));
$("zoom-out").addEventListener("click", () => zoom(0.8));
$("zoom-text").addEventListener("click", () => zoom(1 / view.scale));
$("zoom-fit").addEventListener("click", fit);
$("masks-shown").addEventListener("click", () => setMasksShown(!state.masksShown));
on("shown", () => press($("masks-shown"), state.masksShown));
on("view", () => {
  $("zoom-text").textContent = `${Math.round(view.scale * 100)} %`;
});
on("picture", () => {
  fit();
  showEmpty();
});
on("busy", (busy) => {
  $("busy").hidden = !busy;
});
$("theme").addEventListener("click", () => dispatchEvent(new Event("mal-trt-theme")));

// What is said

const SAVED = { saved: "Saved", saving: "Saving …" };
on("saving", (now, why) => {
  $("saved").dataset.state = now;
  $("saved-text").textContent = SAVED[now] ?? `Not saved yet: ${why}`;
});
on("said", (text) => {
  $("said").textContent = text;
});
let told = null;
on("told", (text) => {
  told?.remove();
  told = toast(text, false);
});
on("failed", (text) => toast(text, true));

function toast(text, failed) {
  const one = make("p", { className: failed ? "toast failed" : "toast", textContent: text });
  $("toasts").append(one);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(() => one.remove(), failed ? 9000 : 4000);
  return one;
}

on("about", () => {
  const { name, pictures, unseen, undrawn } = state.about;
  document.title = `${name} · mal-trt`;
  $("project").textContent = name;
  $("progress").max = Math.max(1, pictures);
  $("progress").value = pictures - unseen;
  $("progress-text").textContent = `${(pictures - unseen).toLocaleString("en")} of ${plural(pictures, "picture")} looked at`;
  $("progress-drawn").textContent = undrawn ? `drawing ${plural(undrawn, "mask")}` : "";
  showEmpty();
});

function showEmpty() {
  const none = state.about && !state.about.pictures;
  $("empty").hidden = Boolean(state.picture) || !state.about;
  $("empty-button").hidden = !none;
  $("empty-text").textContent = none ? "Drop pictures here, or add them with the button. They are kept in the server's workspace and go nowhere else." : state.problem || "Choose a picture.";
}

// The server that was here works on something else by now: with nothing unsaved the page becomes that work's.
function passing(error) {
  if (error.status === api.OTHER_WORK && !api.unsaved()) {
    history.replaceState(null, "", location.pathname);
    location.reload();
  }
  return api.passes(error);
}

// Progress follows each change, and the model while it draws.
let polling = 0;
async function follow() {
  clearTimeout(polling);
  try {
    const before = state.about?.undrawn;
    await work.refreshAbout();
    if (before && before !== state.about.undrawn) refresh();
  } catch (error) {
    if (!passing(error) || (!state.about && error.status)) emit("failed", error.message);
  }
  if (state.about?.undrawn) polling = setTimeout(follow, POLL);
}
on("saving", (now) => {
  if (now === "saved") follow();
});

// What others change, in another tab say, is shown while nothing of ours is on its way.
async function look() {
  try {
    if (!document.hidden && state.about && !api.unsaved()) {
      const { revision } = await api.get("workspace/revision");
      if (revision !== state.about.revision) await takeOver();
    }
  } catch (error) {
    passing(error); // if it does, the next look tells
  }
  setTimeout(look, LOOK);
}

async function takeOver() {
  const { pictures } = state.about;
  await follow();
  await work.refreshPicture();
  if (state.about.pictures === pictures) await refresh();
  else await work.refreshOrder();
}

// Uploads

const pick = () => $("upload").click();
$("upload-button").addEventListener("click", pick);
$("empty-button").addEventListener("click", pick);
$("upload").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  await work.uploadAll(files);
});
let over = 0;
const withFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!withFiles(event)) return;
  over += 1;
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (withFiles(event) && --over <= 0) $("drop").hidden = true;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  $("drop").hidden = true;
  if (event.dataTransfer.files.length) work.uploadAll([...event.dataTransfer.files]);
});

// Drawers of a narrow screen

const DRAWERS = [["open-pictures", "pictures"], ["open-objects", "objects"]];
function openDrawer(wanted) {
  for (const [button, drawer] of DRAWERS) {
    const open = drawer === wanted && $(drawer).dataset.open !== "true";
    $(drawer).dataset.open = String(open);
    $(button).setAttribute("aria-expanded", String(open));
    if (open && drawer === "pictures") refresh();
  }
  $("shade").hidden = $("pictures").dataset.open !== "true";
}
for (const [button, drawer] of DRAWERS) $(button).addEventListener("click", () => openDrawer(drawer));
$("shade").addEventListener("click", () => openDrawer(null));
on("drawers", () => openDrawer(null));

addEventListener("beforeunload", (event) => {
  endNudge();
  if (api.unsaved()) event.preventDefault();
});

// The start

on("picture", () => {
  if (state.picture) history.replaceState(null, "", `#picture-${state.picture.id}`);
});

async function start() {
  await follow();
  while (!state.about) {
    await api.pause(POLL);
    await follow();
  }
  const { unseen, pictures } = state.about;
  if (unseen && unseen < pictures) {
    state.shown = "unseen";
    press($("show-unseen"), true);
    press($("show-all"), false);
  }
  await work.refreshOrder();
  const wanted = Number(location.hash.replace("#picture-", ""));
  const first = state.ids.includes(wanted) ? wanted : state.ids[0];
  if (wanted && !state.ids.includes(wanted)) await openNamed(wanted);
  else if (first) await work.openPicture(first);
}

async function openNamed(id) {
  await work.openPicture(id);
  if (!state.picture && state.ids.length) await work.openPicture(state.ids[0]);
}

setTool("box");
start();
setTimeout(look, LOOK);
