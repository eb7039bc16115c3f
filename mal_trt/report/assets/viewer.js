"use strict";
// One object, large: zoom with the wheel, two fingers or + and -, move by dragging, ← and → for its neighbours.
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.getElementById("viewer");
  if (!dialog) return;
  const stage = document.getElementById("stage");
  const KEYS = { 1: "mask", 2: "drawn", 3: "third", 4: "fourth", b: "box" };
  const MOST = 40;
  const pointers = new Map();
  let number = 0;
  let count = 0;
  let frame = null;
  let zoom = 1;
  let x = 0;
  let y = 0;

  function place() {
    // The crop may be pushed aside, but never out of sight.
    const wide = (stage.clientWidth * zoom) / 2;
    const high = (stage.clientHeight * zoom) / 2;
    x = Math.min(wide, Math.max(-wide, x));
    y = Math.min(high, Math.max(-high, y));
    if (frame) frame.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    stage.classList.toggle("close", zoom > 3);
  }

  function scale(factor, clientX, clientY) {
    const area = stage.getBoundingClientRect();
    const dx = (clientX ?? area.left + area.width / 2) - area.left - area.width / 2;
    const dy = (clientY ?? area.top + area.height / 2) - area.top - area.height / 2;
    const next = Math.min(MOST, Math.max(1, zoom * factor));
    // What is under the pointer stays there.
    x = dx - ((dx - x) * next) / zoom;
    y = dy - ((dy - y) * next) / zoom;
    zoom = next;
    if (zoom === 1) x = y = 0;
    place();
  }

  function fit() {
    zoom = 1;
    x = y = 0;
    place();
  }

  async function show(wanted) {
    number = wanted;
    const found = await MAL.at(number);
    if (number !== wanted) return;
    const { object, about } = found;
    count = found.count;
    document.getElementById("viewer-title").textContent = `${about.name} · ${number + 1} of ${count}`;
    frame = found.picture;
    const image = frame.querySelector("img");
    if (image) image.loading = "eager";
    // As large as the stage allows, whatever the crop's own size.
    const [width, height] = object.view;
    frame.style.setProperty("--shape", width / height);
    stage.replaceChildren(frame);
    stage.setAttribute("aria-label", `Crop of ${about.name} with its box and masks`);
    if (object.problem) stage.append(MAL.make("p", `No picture: ${object.problem}`, { class: "problem" }));
    fit();
    const [left, top, wide, high] = object.at;
    const rows = [
      ["Class", about.name],
      ["Annotation", object.id],
      ["Picture", object.picture],
      ["Box", `${wide} × ${high} at ${left}, ${top} (${about.size})`],
      ["IoU", about.iou < 0 ? "" : MAL.percent(about.iou)],
      ["Score", about.score < 0 ? "" : MAL.percent(about.score)],
      ["Share of its box", `${(100 * object.share).toFixed(1)} %`],
      ["Sides touched", `${about.edges} of 4`],
      ["Parts", about.parts],
      ["Worth a look", about.reasons.join(", ")],
      ["Crop", object.zoom < 1 ? `${(100 * object.zoom).toFixed(0)} % of the picture's pixels a side` : "every pixel"],
    ].filter(([, value]) => value !== "");
    const list = rows.map(([name, value]) => {
      const row = MAL.make("div", "");
      row.append(MAL.make("dt", name), MAL.make("dd", String(value)));
      return row;
    });
    document.getElementById("details").replaceChildren(...list);
    for (const button of dialog.querySelectorAll("[data-step]")) {
      const next = number + Number(button.dataset.step);
      button.disabled = next < 0 || next >= count;
    }
  }

  const step = (by) => {
    if (number + by >= 0 && number + by < count) show(number + by);
  };

  MAL.view = async (wanted) => {
    await show(wanted);
    if (!dialog.open) dialog.showModal();
    stage.focus();
    fit();
  };

  dialog.addEventListener("click", (event) => {
    const of = event.target.dataset;
    if (event.target === dialog || of.close !== undefined) dialog.close();
    else if (of.step) step(Number(of.step));
    else if (of.zoom === "in") scale(1.5);
    else if (of.zoom === "out") scale(1 / 1.5);
    else if (of.zoom === "fit") fit();
  });
  dialog.addEventListener("change", (event) => MAL.layer(event.target.dataset.layer, event.target.checked));
  dialog.addEventListener("close", async () => {
    await MAL.reveal(number);
    MAL.tileAt(number)?.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "arrowright" || key === "n") step(1);
    else if (key === "arrowleft" || key === "p") step(-1);
    else if (key === "+" || key === "=") scale(1.5);
    else if (key === "-") scale(1 / 1.5);
    else if (key === "0") fit();
    else if (KEYS[key]) MAL.layer(KEYS[key], document.documentElement.classList.contains(`no-${KEYS[key]}`));
    else return;
    event.preventDefault();
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      scale(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), event.clientX, event.clientY);
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => (zoom > 1 ? fit() : scale(4, event.clientX, event.clientY)));
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
    if (others.length) {
      const apart = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
      const [other] = others;
      const middle = [(event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2];
      scale(apart(event, other) / apart(before, other), ...middle);
    } else {
      x += event.clientX - before.clientX;
      y += event.clientY - before.clientY;
      place();
    }
    pointers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
});
