"""The page's scripts without a browser: what happens when answers are slow, or pictures change under a hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "mal_trt" / "serve" / "static"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this system")
# As much of a browser as the scripts ask for. asked: requests in order; answer(n, document) answers one of them.
BROWSER = """
class Element {
  constructor() { Object.assign(this, { style: {}, dataset: {}, children: [], width: 200, height: 200, heard: {} }); }
  addEventListener(kind, listener) { (this.heard[kind] ??= []).push(listener); }
  fire(kind, event) {
    const whole = { type: kind, target: this, button: 0, pointerId: 1, ...event };
    Object.assign(whole, { preventDefault() {}, getModifierState: () => false });
    for (const listener of this.heard[kind] ?? []) listener(whole);
  }
  getBoundingClientRect() { return { left: 0, top: 0, width: 200, height: 200 }; }
  querySelectorAll() { return []; }
  querySelector() { return null; }
  closest() { return null; }
  getContext() { return new Proxy({}, { get: () => () => ({ width: 1 }), set: () => true }); }
  get classList() { return { toggle() {} }; }
}
for (const name of ["append", "prepend", "replaceChildren", "remove", "setAttribute", "focus", "setPointerCapture"]) {
  Element.prototype[name] = () => {};
}
const elements = {}, page = new Element();
globalThis.document = Object.assign(new Element(), {
  getElementById: (id) => (elements[id] ??= new Element()), createElement: () => new Element(),
  createElementNS: () => new Element(), documentElement: new Element(),
});
globalThis.addEventListener = (kind, listener) => page.addEventListener(kind, listener);
globalThis.ResizeObserver = class { observe() {} };
globalThis.requestAnimationFrame = () => {};
globalThis.getComputedStyle = () => ({ fontSize: "16px" });
const asked = [];
globalThis.fetch = (path, options = {}) => new Promise((resolve) => {
  asked.push({ path, method: options.method ?? "GET", body: options.body ? JSON.parse(options.body) : null, resolve });
});
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));
const answer = async (place, document) => {
  asked[place].resolve({ ok: true, json: async () => structuredClone(document) });
  await turn();
};
const { state, emit } = await import("./state.js");
const work = await import("./work.js");
const one = (id, more) => (
  { id, box: [10, 10, 50, 50], category: 1, source: "model", counts: "f:", score: 0.5, state: "new", ...more }
);
const about = (...objects) => ({ id: 1, name: "a", width: 100, height: 100, undo: 0, redo: 0, objects });
Object.assign(state, { picture: about(one(1), one(2)), bitmap: {}, selected: 1, ids: [1, 2] });
state.about = { categories: [], key: "k" };
const tell = (found) => console.log(JSON.stringify(found));
"""


def run(tmp_path: Path, script: str) -> object:
    """What a script tells that runs beside the page's own."""
    folder = tmp_path / "static"
    shutil.copytree(STATIC, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(BROWSER + script)
    done = subprocess.run(["node", folder / "run.js"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_stroke_begun_before_the_last_is_answered_goes_on_from_it(tmp_path: Path) -> None:
    script = """
    const { maskOf, show } = await import("./masks.js");
    const object = state.picture.objects[0];
    const bits = (value) => ({ x: 0, y: 0, w: 1, h: 1, bits: new Uint8Array([value]) });
    for (const value of [2, 3]) {
      maskOf(object);
      show(1, bits(value));
      work.setMask(object, [value]);
    }
    await turn();
    await answer(0, about(one(1, { counts: "first" }), one(2)));
    const between = maskOf(state.picture.objects[0]).mask.bits[0];
    await answer(1, about(one(1, { counts: "0T30P6" }), one(2)));
    tell([between, maskOf(state.picture.objects[0]).counts, asked.length]);
    """
    assert run(tmp_path, script) == [3, "0T30P6", 2]


def test_an_answer_does_not_take_a_box_out_of_the_hand(tmp_path: Path) -> None:
    script = """
    await import("./tools.js");
    const object = state.picture.objects[0];
    work.setState(state.picture.objects[1], "accepted");
    await turn();
    object.movedTo = [12, 10, 52, 50];
    await answer(0, about(one(1), one(2, { state: "accepted" })));
    const [now, other] = state.picture.objects;
    tell([now === object, now.movedTo, other.state, state.selected]);
    """
    assert run(tmp_path, script) == [True, [12, 10, 52, 50], "accepted", 1]


def test_a_box_begun_on_one_picture_is_not_drawn_on_the_next(tmp_path: Path) -> None:
    script = """
    await import("./tools.js");
    const canvas = document.getElementById("canvas"), at = (x, y) => ({ clientX: x, clientY: y });
    const draw = (between) => {
      canvas.fire("pointerdown", at(60, 60));
      canvas.fire("pointermove", at(90, 90));
      between();
      canvas.fire("pointermove", at(95, 95));
      canvas.fire("pointerup", at(95, 95));
    };
    state.tool = "box";
    draw(() => { Object.assign(state, { picture: { ...about(), id: 2 } }); emit("picture"); });
    await turn();
    const before = asked.length;
    draw(() => {});
    await turn();
    tell([before, asked.map(({ path }) => path)]);
    """
    assert run(tmp_path, script) == [0, ["workspace/pictures/2/objects"]]


def test_a_key_that_is_held_decides_once(tmp_path: Path) -> None:
    script = """
    await import("./keys.js");
    for (const repeat of [false, true, true]) page.fire("keydown", { key: "Enter", repeat });
    for (const repeat of [false, true, true]) page.fire("keydown", { key: "Delete", repeat });
    await turn();
    await answer(0, about(one(1), one(2)));
    await turn();
    tell(asked.filter(({ method }) => method !== "GET").map(({ method, path }) => `${method} ${path.split("=")[0]}`));
    """
    accepted, deleted = "POST workspace/pictures/1/accept", "DELETE workspace/objects/1?token"
    assert run(tmp_path, script) == [accepted, deleted]
