// Help, notes, and the export.
import * as api from "./api.js";
import { $, make, plural } from "./dom.js";
import { on, state } from "./state.js";
import { refreshAbout } from "./work.js";

const ABOUT = {
  coco: "COCO", "coco-polygons": "COCO, polygons", yolo: "YOLO polygons", labelme: "LabelMe", voc: "Pascal VOC",
  "png-instance": "PNG, instances", "png-semantic": "PNG, classes", cvat: "CVAT", "label-studio": "Label Studio",
  parquet: "Parquet", geojson: "GeoJSON",
};
const WAIT = 1000;

for (const dialog of document.querySelectorAll("dialog")) {
  for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

$("help-button").addEventListener("click", () => $("help").showModal());
$("notes-button").addEventListener("click", () => $("notes").showModal());
$("export-button").addEventListener("click", () => {
  $("export-result").replaceChildren();
  $("export").showModal();
});

on("about", () => {
  const { formats, notes } = state.about;
  if (!$("formats").querySelector("input")) {
    for (const { name, ending } of formats) {
      const radio = make("input", { type: "radio", name: "format", value: name, checked: name === "coco" });
      $("formats").append(make("label", { title: `${name}, ${ending}` }, radio, make("span", { textContent: ABOUT[name] ?? name })));
    }
  }
  $("notes-button").hidden = !notes.length;
  $("notes-list").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
});

$("export-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const format = $("export-form").elements.format.value;
  const asked = { format, accepted: $("only-accepted").checked, simplify: $("simplify").checked ? Number($("simplify-pixels").value) : null };
  $("export-go").disabled = true;
  say(make("p", { textContent: "Writing …" }));
  try {
    await api.settled();
    let done = null, all = false;
    while (!done) {
      try {
        done = await api.post("workspace/exports", asked);
      } catch (error) {
        await refreshAbout();
        if (error.status !== 409 || all || !$("export").open) throw error;
        all = !state.about.undrawn; // the last of them may have come meanwhile
        if (all) continue;
        say(make("p", { textContent: `${plural(state.about.undrawn, "mask is", "masks are")} still being drawn. The export begins when they are there.` }));
        await new Promise((resolve) => setTimeout(resolve, WAIT));
      }
    }
    const link = make("a", { href: `workspace/exports/${done.number}`, download: done.file, textContent: done.file });
    const left = done.left_out ? `; ${done.left_out.toLocaleString("en")} left out: ${asked.accepted ? "not accepted" : "rejected"}` : "";
    say(
      make("p", {}, link, ` (${Math.max(1, Math.round(done.bytes / 1000)).toLocaleString("en")} kB)`),
      make("p", { textContent: `${plural(done.written, "mask")} written${left}.` }),
      ...done.told.map((line) => make("p", { className: "quiet", textContent: line })),
      ...(done.undrawn ? [make("p", { className: "failed", textContent: `${plural(done.undrawn, "object")} without a mask: their pictures cannot be read.` })] : []),
    );
    link.click();
  } catch (error) {
    say(make("p", { className: "failed", textContent: error.message }));
  } finally {
    $("export-go").disabled = false;
  }
});

const say = (...lines) => $("export-result").replaceChildren(...lines);
