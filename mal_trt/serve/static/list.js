// The list of pictures: any number of them, of which only those on the screen are elements.
import * as api from "./api.js";
import { $, icon, make, plural, press } from "./dom.js";
import { emit, on, state } from "./state.js";
import { openPicture, refreshOrder } from "./work.js";

const AROUND = 6;
const PAGE = 60;
const AGAIN = 5000; // milliseconds after the server did not answer
const list = $("list"), all = $("list-all");
const rows = new Map(); // what the server says of a picture
const items = new Map(); // elements on the screen, by place
let asking = null;

const rowHeight = () => 4 * parseFloat(getComputedStyle(document.documentElement).fontSize);

export function show() {
  const height = rowHeight(), count = state.ids.length;
  all.style.height = `${count * height}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / height) - AROUND);
  const last = Math.min(count, Math.ceil((list.scrollTop + list.clientHeight) / height) + AROUND);
  for (const [place, item] of items) {
    if (place < first || place >= last || item.id !== state.ids[place]) {
      item.element.remove();
      items.delete(place);
    }
  }
  const missing = [];
  for (let place = first; place < last; place += 1) {
    const id = state.ids[place];
    if (!rows.has(id)) missing.push(id);
    if (!items.has(place)) items.set(place, { id, element: element(id) });
    const { element: one } = items.get(place);
    one.style.top = `${place * height}px`;
    fill(one, id, place);
    if (!one.isConnected) all.append(one);
  }
  const none = $("list-none");
  none.hidden = count > 0;
  none.textContent = state.search ? "No picture of that name." : state.shown === "unseen" && state.about?.pictures ? "Everything has been looked at." : "No pictures yet.";
  if (missing.length) load(missing.slice(0, PAGE));
}

function element(id) {
  const one = make(
    "button", { className: "item", type: "button" },
    make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false }), make("span", { className: "name" }), make("span", { className: "about" }),
  );
  one.addEventListener("click", () => {
    emit("drawers");
    openPicture(id);
  });
  return one;
}

function fill(one, id, place) {
  const row = rows.get(id), [image, name, about] = one.children;
  one.setAttribute("aria-current", String(state.at === id));
  one.setAttribute("aria-posinset", place + 1);
  one.setAttribute("aria-setsize", state.ids.length);
  if (!row) return;
  const source = `workspace/pictures/${id}/small?key=${state.about?.key ?? ""}`;
  if (!row.problem && image.getAttribute("src") !== source) image.src = source;
  name.textContent = row.name.slice(row.name.lastIndexOf("/") + 1);
  one.title = row.name;
  one.classList.toggle("problem", Boolean(row.problem));
  about.textContent = row.problem ?? [
    plural(row.objects, "object"),
    row.accepted ? `${row.accepted} accepted` : "",
    row.rejected ? `${row.rejected} rejected` : "",
    row.worst !== null && !row.accepted && !row.rejected ? `worst ${row.worst.toFixed(2).replace(/^0/, "")}` : "",
  ].filter(Boolean).join(", ");
  const done = one.querySelector(".mark-done");
  if (!row.unseen && !row.problem) {
    if (!done) one.append(icon("check", "mark-done"));
  } else done?.remove();
}

function load(ids) {
  if (asking) return;
  asking = api.get(`workspace/pictures/rows?ids=${ids.join(",")}`).then(
    ({ rows: found }) => {
      for (const row of found) rows.set(row.id, row);
      for (const id of ids) if (!rows.has(id)) rows.set(id, { name: "", problem: "gone", objects: 0 });
    },
    async (error) => {
      emit("failed", error.message);
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    },
  ).finally(() => {
    asking = null;
    show();
  });
}

// Ask again what is said of one picture, or of all that are shown.
export async function refresh(id) {
  const ids = id ? [id] : [...items.values()].map((item) => item.id);
  if (!ids.length) return;
  try {
    for (const row of (await api.get(`workspace/pictures/rows?ids=${ids.slice(0, 200).join(",")}`)).rows) rows.set(row.id, row);
    show();
  } catch { /* the next change tells */ }
}

function scrollToCurrent() {
  const place = state.ids.indexOf(state.at), height = rowHeight();
  if (place < 0) return;
  if (place * height < list.scrollTop || (place + 1) * height > list.scrollTop + list.clientHeight) {
    list.scrollTop = (place + 0.5) * height - list.clientHeight / 2;
  }
}

function setShown(shown) {
  state.shown = shown;
  press($("show-unseen"), shown === "unseen");
  press($("show-all"), shown === "all");
  refreshOrder();
}

list.addEventListener("scroll", show, { passive: true });
new ResizeObserver(show).observe(list);
$("show-unseen").addEventListener("click", () => setShown("unseen"));
$("show-all").addEventListener("click", () => setShown("all"));
$("sort").addEventListener("change", (event) => {
  state.sort = event.target.value;
  refreshOrder();
});
let typing = 0;
$("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    state.search = event.target.value.trim();
    refreshOrder();
  }, 250);
});
on("order", () => {
  list.scrollTop = 0;
  scrollToCurrent();
  show();
});
on("picture", () => {
  scrollToCurrent();
  show();
});
on("row", refresh);
