"use strict";
// Objects: which of them, in which order, a page of tiles at a time. Names reach the page as text alone.
const MAL = (() => {
  const SHOWN = 48; // tiles of a page
  const SVG = "http://www.w3.org/2000/svg";
  const LAYERS = ["mask", "drawn", "third", "fourth"];
  const SIZES = ["small", "medium", "large"];
  const pages = new Map(); // of data, by number: a promise
  const waiting = new Map();
  const skippedPages = new Map();
  let index = null;
  let found = []; // places of the objects that pass the filters, in their order
  let at = 0; // page of tiles
  let shuffle = 1;

  const $ = (id) => document.getElementById(id);

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== "") element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function script(name) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = name;
      element.onload = resolve;
      element.onerror = () => reject(new Error(`${name} is missing`));
      document.head.append(element);
    });
  }

  // A page of data arrives as a call of MAL.page, since pages opened from the disk cannot fetch.
  function load(store, kind, number) {
    if (!store.has(number)) {
      const name = `data/${kind}-${String(number).padStart(5, "0")}.js`;
      store.set(number, script(name).then(() => waiting.get(`${kind}${number}`)));
    }
    return store.get(number);
  }

  async function entry(place) {
    const page = await load(pages, "page", Math.floor(place / index.page));
    return page[place % index.page];
  }

  const crop = (place) =>
    `crops/${String(Math.floor(place / 1000)).padStart(3, "0")}/${String(place).padStart(6, "0")}.jpg`;
  const percent = (thousandths) => (thousandths < 0 ? "–" : `${(thousandths / 10).toFixed(1)} %`);

  function facts(place) {
    const value = (name) => index.columns[name][place];
    return {
      name: index.classes[value("class")] || "(no class)",
      size: SIZES[value("size")],
      iou: value("iou"),
      score: value("score"),
      edges: value("edges"),
      parts: value("parts"),
      reasons: index.reasons.filter((_, bit) => value("reasons") & (1 << bit)),
    };
  }

  // The crop with its masks and box over it, as large as its place.
  function picture(place, object) {
    const frame = make("span", "", { class: "frame" });
    const [width, height] = object.view;
    frame.style.aspectRatio = `${width} / ${height}`;
    if (!object.problem) {
      const image = make("img", "", { src: crop(place), alt: "", width: width / 2, height: height / 2 });
      image.loading = "lazy";
      image.decoding = "async";
      frame.append(image);
    }
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-hidden", "true");
    object.masks.forEach((line, layer) => {
      if (!line) return;
      for (const kind of ["halo", "line"]) {
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("d", line);
        path.setAttribute("class", `${kind} ${LAYERS[layer]}`);
        svg.append(path);
      }
    });
    for (const kind of ["halo", "line"]) {
      const rect = document.createElementNS(SVG, "rect");
      ["x", "y", "width", "height"].forEach((name, i) => rect.setAttribute(name, object.box[i]));
      rect.setAttribute("class", `${kind} box`);
      svg.append(rect);
    }
    frame.append(svg);
    return frame;
  }

  function tile(place, number, object) {
    const about = facts(place);
    const figure =
      about.iou >= 0 ? `IoU ${percent(about.iou)}` : about.score >= 0 ? `score ${percent(about.score)}` : about.size;
    const item = make("li", "");
    const button = make("button", "", { type: "button", class: "tile" });
    button.append(picture(place, object));
    const caption = make("span", "", { class: "caption" });
    caption.append(make("b", about.name), make("span", figure));
    button.append(caption);
    button.setAttribute("aria-label", `${about.name}, id ${object.id}, ${figure}. Look closer`);
    button.addEventListener("click", () => MAL.view(number));
    item.append(button);
    return item;
  }

  function random(seed) {
    // mulberry32: the same order again for the same seed
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function sorted(places, order) {
    const [by, way] = order.split("-");
    if (by === "random") {
      const next = random(shuffle);
      for (let i = places.length - 1; i > 0; i--) {
        const j = Math.floor(next() * (i + 1));
        [places[i], places[j]] = [places[j], places[i]];
      }
    } else if (way) {
      const values = index.columns[by];
      const sign = way === "up" ? 1 : -1;
      // What has no value comes last either way.
      const key = (place) => (values[place] < 0 ? Infinity : sign * values[place]);
      places.sort((a, b) => key(a) - key(b) || a - b);
    }
    return places;
  }

  function filter() {
    const form = new FormData($("filters"));
    const tests = [];
    for (const name of ["class", "size", "edges", "border"]) {
      const wanted = form.get(name);
      if (wanted) tests.push((place) => index.columns[name][place] === Number(wanted));
    }
    const reason = form.get("reason");
    if (reason) tests.push((place) => index.columns.reasons[place] & (1 << Number(reason)));
    found = [];
    for (let place = 0; place < index.count; place++) if (tests.every((test) => test(place))) found.push(place);
    sorted(found, form.get("sort") || "place");
    go(0);
  }

  async function go(page) {
    const last = Math.max(0, Math.ceil(found.length / SHOWN) - 1);
    at = Math.min(Math.max(0, page), last);
    pager($("pager"), at, last);
    const first = at * SHOWN;
    const places = found.slice(first, first + SHOWN);
    const grid = $("grid");
    grid.setAttribute("aria-busy", "true");
    const wanted = found;
    try {
      const objects = await Promise.all(places.map(entry));
      if (wanted !== found || first !== at * SHOWN) return; // another page was asked for meanwhile
      grid.replaceChildren(...places.map((place, i) => tile(place, first + i, objects[i])));
      $("count").textContent = found.length
        ? `${(first + 1).toLocaleString("en")} to ${(first + places.length).toLocaleString("en")} of ` +
          `${found.length.toLocaleString("en")} objects` +
          (found.length < index.count ? `, ${index.count.toLocaleString("en")} in all` : "")
        : "No object is like this.";
    } catch (error) {
      $("count").textContent = `${error.message}: was the folder copied whole?`;
    }
    grid.removeAttribute("aria-busy");
  }

  function pager(nav, page, last) {
    nav.hidden = last === 0;
    const [before, after] = nav.querySelectorAll("button");
    before.disabled = page === 0;
    after.disabled = page === last;
    const input = nav.querySelector("input");
    input.value = page + 1;
    input.max = last + 1;
    nav.querySelector("span").textContent = ` of ${(last + 1).toLocaleString("en")}`;
  }

  function connect(nav, turn, where) {
    nav.addEventListener("click", (event) => {
      const step = Number(event.target.dataset.step);
      if (step) turn(where() + step);
    });
    nav.querySelector("input").addEventListener("change", (event) => turn(Math.floor(Number(event.target.value)) - 1));
  }

  function begin() {
    const form = $("filters");
    form.addEventListener("change", (event) => {
      if (event.target.dataset.layer) MAL.layer(event.target.dataset.layer, event.target.checked);
      else filter();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () =>
      setTimeout(() => {
        shuffle += 1;
        for (const box of form.querySelectorAll("[data-layer]")) MAL.layer(box.dataset.layer, true);
        filter();
      }),
    );
    connect($("pager"), (page) => go(page).then(() => $("objects").scrollIntoView()), () => at);
    document.addEventListener("keydown", (event) => {
      if ($("viewer").open || event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (event.key === "ArrowRight") go(at + 1);
      else if (event.key === "ArrowLeft") go(at - 1);
    });
    // A class or a reason in a table shows its objects.
    for (const name of ["class", "size", "reason"]) {
      for (const button of document.querySelectorAll(`button[data-${name}]`)) {
        button.addEventListener("click", () => {
          form.reset();
          form.elements[name].value = button.dataset[name];
          setTimeout(() => $("objects").scrollIntoView());
        });
      }
    }
    filter();
  }

  function listSkipped() {
    const section = $("skipped");
    if (!section) return;
    const nav = $("skipped-pager");
    const last = Math.ceil(Number(section.dataset.count) / 500) - 1;
    let page = 0;
    const turn = async (wanted) => {
      page = Math.min(Math.max(0, wanted), last);
      pager(nav, page, last);
      const records = await load(skippedPages, "skipped", page);
      const rows = records.map((record) => {
        const row = make("tr", "");
        for (const name of ["id", "image_id", "reason", "detail"]) row.append(make("td", String(record[name] ?? "")));
        return row;
      });
      $("skipped-rows").replaceChildren(...rows);
    };
    connect(nav, turn, () => page);
    turn(0).catch(() => {});
  }

  document.addEventListener("DOMContentLoaded", () => {
    listSkipped();
    if (index) begin();
  });

  return {
    index: (value) => {
      index = value;
    },
    page: (number, objects) => waiting.set(`page${number}`, objects),
    skipped: (number, records) => waiting.set(`skipped${number}`, records),
    // For the viewer: the object that stands at a place of the filtered list, and what is known of it.
    at: async (number) => {
      const place = found[number];
      const object = await entry(place);
      return { object, about: facts(place), picture: picture(place, object), count: found.length };
    },
    make,
    percent,
    reveal: (number) => {
      const page = Math.floor(number / SHOWN);
      return page === at ? Promise.resolve() : go(page);
    },
    tileAt: (number) => $("grid").querySelectorAll(".tile")[number % SHOWN],
    layer: (name, on) => {
      document.documentElement.classList.toggle(`no-${name}`, !on);
      for (const box of document.querySelectorAll(`[data-layer="${name}"]`)) box.checked = on;
    },
  };
})();
