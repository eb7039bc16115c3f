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
const wait = setTimeout;
globalThis.setTimeout = (done, milliseconds) => wait(done, Math.min(milliseconds, 2));
const turn = () => new Promise((resolve) => wait(resolve, 5));
const answer = async (place, document) => {
  asked[place].resolve({ ok: true, json: async () => structuredClone(document), blob: async () => null });
  await turn();
};
const refuse = async (place, status, error) => {
  asked[place].resolve({ ok: false, status, json: async () => ({ error }) });
  await turn();
};
globalThis.createImageBitmap = async () => ({ close() {} });
const { state, emit } = await import("./state.js");
const work = await import("./work.js");
const one = (id, more) => (
  { id, box: [10, 10, 50, 50], category: 1, source: "model", counts: "f:", score: 0.5, state: "new", ...more }
);
const about = (...objects) => ({ id: 1, name: "a", width: 100, height: 100, undo: 0, redo: 0, objects });
Object.assign(state, { picture: about(one(1), one(2)), bitmap: { close() {} }, selected: 1, at: 1, ids: [1, 2] });
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


def test_a_change_is_sent_until_what_is_in_its_way_has_passed(tmp_path: Path) -> None:
    script = """
    const { on } = await import("./state.js");
    const said = [];
    on("saving", (now, why) => said.push(why ?? now));
    const statuses = [401, 412, 502, 507];
    work.setState(state.picture.objects[0], "accepted");
    await turn();
    for (const [place, status] of statuses.entries()) await refuse(place, status, `is ${status}`);
    await answer(statuses.length, about(one(1, { state: "accepted" }), one(2)));
    const accepted = state.picture.objects[0].state;
    work.setState(state.picture.objects[1], "accepted");
    await turn();
    await refuse(statuses.length + 1, 400, "there is none");
    const tokens = new Set(asked.slice(0, statuses.length + 1).map(({ body }) => body.token));
    tell([accepted, tokens.size, said.slice(2, 5), asked.at(-1).method]);
    """
    why = ["is 412", "is 502", "is 507"]
    assert run(tmp_path, script) == ["accepted", 1, why, "GET"]


def test_keys_meant_for_a_box_on_its_way_do_not_reach_another_object(tmp_path: Path) -> None:
    script = """
    const { making } = await import("./paint.js");
    await import("./tools.js");
    const canvas = document.getElementById("canvas"), at = (x, y) => ({ clientX: x, clientY: y });
    const draw = (x) => {
      canvas.fire("pointerdown", at(x, 60));
      canvas.fire("pointermove", at(x + 20, 90));
    };
    state.tool = "box";
    draw(60);
    canvas.fire("pointerup", at(80, 90));
    const between = state.selected;
    state.category = 2; // a number key
    draw(70);
    await turn();
    await answer(0, { ...about(one(1), one(2), one(3)), made: 3 });
    const kept = making.box !== null;
    canvas.fire("pointerup", at(90, 90));
    await answer(1, about(one(1), one(2), one(3, { category: 2 })));
    tell([between, kept, asked.map(({ method, body }) => [method, body.category])]);
    """
    changes = [["POST", 1], ["PATCH", 2], ["POST", 2]]
    assert run(tmp_path, script) == [0, True, changes]


def test_a_picture_that_cannot_be_used_can_be_passed(tmp_path: Path) -> None:
    script = """
    state.ids = [1, 2, 3];
    work.step(1);
    await refuse(0, 400, "b: not a picture");
    await refuse(1, 400, "b: not a picture");
    const { picture, problem } = state;
    work.step(1);
    await refuse(2, 503, "busy");
    work.step(1);
    tell([picture, problem, asked.map(({ path }) => path.split("?")[0]).filter((path) => !path.endsWith("file"))]);
    """
    pictures = [f"workspace/pictures/{number}" for number in (2, 3, 3)]
    assert run(tmp_path, script) == [None, "b: not a picture", pictures]


def test_masks_come_some_at_a_time_and_are_not_accepted_unseen(tmp_path: Path) -> None:
    script = """
    const none = (id) => one(id, { counts: null });
    state.ids = [1];
    work.openPicture(1);
    await answer(0, about(none(1), none(2)));
    await answer(1, null);
    await refuse(2, 503, "busy");
    await answer(3, about(one(1), none(2)));
    work.acceptAll();
    const seen = state.picture.objects.map(({ counts }) => counts);
    await answer(4, about(one(1), one(2)));
    work.acceptAll();
    await turn();
    tell([seen, state.selected, asked.slice(2).map(({ path }) => path)]);
    """
    found = run(tmp_path, script)
    masks, accept = "workspace/pictures/1/masks", "workspace/pictures/1/accept"
    assert found == [["f:", None], 0, [masks, masks, masks, accept]]


def test_shift_and_a_brush_fill_what_the_line_goes_around(tmp_path: Path) -> None:
    script = """
    const { decode } = await import("./rle.js");
    const { view } = await import("./viewport.js");
    await import("./tools.js");
    Object.assign(view, { scale: 1, x: 0, y: 0 });
    state.tool = "brush";
    const canvas = document.getElementById("canvas"), held = { shiftKey: true, altKey: false };
    const at = ([x, y]) => ({ clientX: x, clientY: y, ...held });
    const around = [[60, 60], [80, 60], [80, 70], [60, 70]];
    canvas.fire("pointerdown", at(around[0]));
    for (const place of around) canvas.fire("pointermove", at(place));
    canvas.fire("pointerup", at(around[3]));
    await turn();
    tell(asked[0].body.counts);
    """
    rows, first = 100, 60 * 100 + 60
    expected = [first, *[10, rows - 10] * 19, 10]
    counts = run(tmp_path, script)
    assert isinstance(counts, list) and counts[:-1] == expected and sum(counts) == 100 * 100
