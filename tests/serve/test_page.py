"""The page in a real browser: boxes, masks on the screen, brush, keys, a killed server, export.

Needs playwright and a Chromium of the system (`apt-get install chromium`); no browser is downloaded.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from label_data import blob_picture
from mal_trt import Labeler
from mal_trt.geometry.rle import decode_rle
from serving import png

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this system; apt-get install chromium"),
]
WIDTH, HEIGHT = 160, 120
NASTY = '<img src=x onerror="document.title=1">.png'
NO_SERVER = 120.0  # seconds


class Serve:
    """`mal-trt serve` as a process of its own, on one port, as often as it is started."""

    def __init__(self, *options: Any, port: int | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = port or free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self._command = [sys.executable, "-m", "mal_trt.cli", "serve", "--port", str(self.port), *map(str, options)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # From another folder, or -m would take the sources, which are not laid out as the package is.
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet, cwd=Path(__file__).parent)
        until = time.monotonic() + NO_SERVER
        while True:
            try:
                urllib.request.urlopen(f"{self.address}readyz", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until, "the server did not start"
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def json(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def data(serve_folder: Path, tmp_path: Path) -> list[Any]:
    """Two pictures, one with a name that would be markup, and a box in each; the options of the server for them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ["a.png", NASTY]
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(blob_picture(WIDTH, HEIGHT, number)))
    document = {
        "images": [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names, 1)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 38, 36]} for n in (1, 2)],
        "categories": [{"id": 1, "name": "<b>blob</b>"}, {"id": 2, "name": "pair"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    about = ["--images", folder, "--boxes", tmp_path / "boxes.json", "--workspace", tmp_path / "work"]
    return [*about, "--model", serve_folder / "tiny.onnx", "--device", "cpu", "--threads", 1]


@pytest.fixture
def server(data: list[Any]) -> Iterator[Serve]:
    serve = Serve(*data)
    serve.start()
    yield serve
    serve.kill()


class Page:
    """The page in a tab; what its scripts complain of is a failure at the end."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1100, "height": 700}, **context)
        self.tab = self.context.new_page()
        self.complaints: list[str] = []
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(address)
        self.shown()

    def shown(self) -> None:
        """Wait until a picture with its objects is there, and all is saved."""
        self.tab.locator(".thing .score, .nothing").first.wait_for()
        self.saved()

    def saved(self) -> None:
        self.tab.locator('#saved[data-state="saved"]').wait_for()
        self.tab.locator("#busy").wait_for(state="hidden")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the picture is on the screen: it is as large as fits, or read off the zoom button."""
        left, top, scale = self.tab.evaluate(
            """async () => {
              const { view } = await import("/static/viewport.js");
              const { left, top } = document.getElementById("canvas").getBoundingClientRect();
              return [left + view.x, top + view.y, view.scale];
            }"""
        )
        return left + x * scale, top + y * scale

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place of the picture, move through the others, let go at the last."""
        self.tab.mouse.move(*self.place(*places[0]))
        self.tab.mouse.down()
        for place in places[1:]:
            self.tab.mouse.move(*self.place(*place), steps=4)
        self.tab.mouse.up()
        self.saved()

    def pixel(self, x: float, y: float) -> list[int]:
        """RGB on the canvas at a place of the picture."""
        sx, sy = self.place(x, y)
        frames = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.tab.evaluate(frames)
        found: list[int] = self.tab.evaluate(
            """([x, y]) => {
              const canvas = document.getElementById("canvas"), { left, top } = canvas.getBoundingClientRect();
              const ratio = canvas.width / canvas.clientWidth;
              const at = [Math.round((x - left) * ratio), Math.round((y - top) * ratio)];
              return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [sx, sy],
        )
        return found

    def colour(self, x: float, y: float) -> int:
        """How far the pixel there is from grey: the pictures are nearly grey, the masks are not."""
        pixel = self.pixel(x, y)
        return max(pixel) - min(pixel)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)
        self.saved()

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


@pytest.fixture
def page(browser: Any, server: Serve) -> Iterator[Page]:
    page = Page(browser, server.address)
    yield page
    page.close()


def objects(server: Serve, picture: int = 1) -> list[Any]:
    found: list[Any] = server.json(f"workspace/pictures/{picture}")["objects"]
    return found


def mask_of(one: Any) -> np.ndarray:
    return decode_rle({"size": [HEIGHT, WIDTH], "counts": one["counts"]}).full(HEIGHT, WIDTH)


def test_a_box_its_mask_the_brush_a_killed_server_and_the_export(
    page: Page, server: Serve, serve_folder: Path, tmp_path: Path
) -> None:
    assert page.colour(100, 60) < 40  # a bright blob without a mask
    page.tab.keyboard.press("b")
    page.drag((82, 42), (100, 60), (118, 78))
    assert page.colour(100, 60) > 50, "the mask is on the screen"
    one = objects(server)[1]
    x0, y0, x1, y1 = one["box"]
    assert abs(x0 - 82) < 1 and abs(y0 - 42) < 1 and abs(x1 - 118) < 1 and abs(y1 - 78) < 1
    picture = np.asarray(Image.open(tmp_path / "pictures" / "a.png"))
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1) as labeler:
        assert {"size": [HEIGHT, WIDTH], "counts": one["counts"]} == labeler(picture, [one["box"]]).rle[0]

    # The mask follows the box; at a higher threshold it is smaller.
    page.tab.keyboard.press("v")
    page.drag((100, 60), (100, 64))
    moved = objects(server)[1]
    assert abs(moved["box"][1] - y0 - 4) < 1 and moved["counts"] != one["counts"]
    page.press("Control+z")
    assert objects(server)[1] == one
    page.tab.locator("#threshold").fill("0.9")
    page.saved()
    thin = objects(server)[1]
    assert thin["threshold"] == 0.9 and thin["area"] < one["area"]

    # The brush adds, the eraser takes away.
    page.tab.keyboard.press("p")
    assert page.colour(135, 100) < 40
    page.drag((130, 100), (145, 100))
    assert page.colour(135, 100) > 50
    page.tab.keyboard.press("e")
    page.drag((100, 60), (101, 60))
    brushed = objects(server)[1]
    mask = mask_of(brushed)
    assert brushed["source"] == "brush" and mask[100, 130:145].all() and not mask[60, 95:106].any()
    assert mask[100].sum() < 50

    # A class, a decision; then everything is there after a reload, and after kill -9.
    page.press("2", "a")
    before = objects(server)
    assert (before[1]["category"], before[1]["state"]) == (2, "accepted")
    page.tab.reload()
    page.shown()
    assert objects(server) == before and page.colour(135, 100) > 50
    server.kill()
    server.start()
    page.tab.reload()
    page.shown()
    assert objects(server) == before and page.colour(135, 100) > 50

    # What is changed while there is no server is sent when there is one.
    page.tab.keyboard.press(".")
    server.kill()
    page.tab.keyboard.press("x")
    page.tab.locator('#saved[data-state="lost"]').wait_for()
    server.start()
    page.saved()
    assert objects(server)[0]["state"] == "rejected"
    page.press("Control+z")
    assert objects(server)[0]["state"] == "new"

    # The export is what Python makes of the same boxes, byte for byte, where no brush was.
    page.tab.locator("#export-button").click()
    with page.tab.expect_download() as download:
        page.tab.locator("#export-go").click()
    download.value.save_as(tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1) as labeler:
        expected = labeler(picture, [[2, 2, 40, 38]])
    assert [record["image_id"] for record in document["annotations"]] == [1, 2, 1]
    assert document["annotations"][0]["segmentation"] == expected.rle[0]
    assert document["annotations"][0]["quality"]["score"] == expected.quality[0]
    assert document["annotations"][2]["segmentation"]["counts"] == brushed["counts"]
    assert document["annotations"][2]["category_id"] == 2


def test_the_keyboard_alone_and_names_that_would_be_markup(page: Page, server: Serve) -> None:
    page.tab.locator("#canvas").focus()
    page.press("n")
    page.tab.locator(".thing").nth(1).wait_for()
    made = objects(server)[1]
    for key in ("ArrowRight", "Shift+ArrowRight", "ArrowDown", "Alt+ArrowRight", "Alt+ArrowDown"):
        page.tab.keyboard.press(key)
    page.tab.wait_for_timeout(700)
    page.saved()
    nudged = objects(server)[1]
    assert np.allclose(np.subtract(nudged["box"], made["box"]), [11, 1, 12, 2], atol=0.21)
    page.press("Delete")
    assert len(objects(server)) == 1
    page.press("Control+z", "Control+z")  # the deletion, and the arrow keys: one step
    assert objects(server)[1] == made
    page.press("Control+Shift+z", "Control+Shift+z")
    assert len(objects(server)) == 1
    page.press("Control+z", "Control+z", "Control+z")
    page.press("Enter")
    assert all(one["state"] == "accepted" for one in objects(server))
    page.tab.get_by_text(re.compile("<img src=x")).first.wait_for()
    assert page.tab.locator("#picture-name").inner_text().startswith(NASTY)
    assert page.tab.title() == "pictures · mal-trt"
    assert page.tab.locator("main img, #list img[onerror], .chip b").count() == 0
    page.press("Enter")
    page.tab.get_by_text("Every picture here has been looked at.").wait_for()
    assert server.json("workspace")["unseen"] == 0
    page.tab.keyboard.press("?")
    page.tab.locator("#help[open]").wait_for()
    page.tab.keyboard.press("Escape")
    names = page.tab.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, progress")].filter((one) => !(
          one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length || one.title || one.hidden
        )).map((one) => one.outerHTML)"""
    )
    assert names == [], "every control has a name"


def test_touch_on_a_small_screen_zooms_draws_and_uploads(browser: Any, server: Serve, tmp_path: Path) -> None:
    page = Page(browser, server.address, has_touch=True, color_scheme="dark")
    page.tab.set_viewport_size({"width": 360, "height": 740})
    page.tab.locator("#open-objects").wait_for()
    page.tab.wait_for_timeout(200)
    overflow = page.tab.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0 and page.tab.evaluate("() => document.documentElement.dataset.theme") == "dark"
    session = page.context.new_cdp_session(page.tab)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    first, last = page.place(82, 42), page.place(118, 78)
    touch("touchStart", first)
    for share in (0.3, 0.7, 1):
        touch("touchMove", tuple(np.add(first, np.multiply(share, np.subtract(last, first))).tolist()))
    touch("touchEnd")
    page.tab.wait_for_timeout(200)
    page.saved()
    assert len(objects(server)) == 2 and page.colour(100, 60) > 50
    before = page.tab.locator("#zoom-text").inner_text()
    touch("touchStart", (150, 350), (210, 350))
    touch("touchMove", (110, 350), (250, 350))
    touch("touchEnd")
    page.tab.wait_for_timeout(200)
    assert int(page.tab.locator("#zoom-text").inner_text().split()[0]) > 1.8 * int(before.split()[0])
    assert len(objects(server)) == 2
    page.tab.locator("#upload").set_input_files(
        [{"name": "new.png", "mimeType": "image/png", "buffer": png(blob_picture(60, 50, 7))}]
    )
    page.tab.get_by_text("new.png · 60 × 50").wait_for()
    assert (tmp_path / "work" / "uploads" / "new.png").is_file()
    page.close()


def test_another_tab_shows_what_was_changed_here(page: Page, browser: Any, server: Serve) -> None:
    other = Page(browser, server.address)
    page.tab.locator("#canvas").focus()
    page.press("n")
    other.tab.locator(".thing").nth(1).wait_for()
    page.press("Delete")
    other.tab.locator(".thing").nth(1).wait_for(state="detached")
    other.close()


def test_classes_by_name_a_brush_among_hidden_masks_and_one_object_alone(page: Page, server: Serve) -> None:
    page.tab.keyboard.press("c")
    page.tab.keyboard.type("blob of oil")
    page.press("Enter")
    page.tab.locator('.chip[aria-pressed="true"]', has_text="blob of oil").wait_for()
    page.tab.keyboard.press("b")  # a key for the picture again, not a letter of the next name
    page.tab.locator(".chip", has_text="blob of oil").dblclick()
    page.tab.locator("#rename-name").fill("oil")
    page.tab.keyboard.press("Enter")
    page.tab.locator(".chip", has_text=re.compile("^3oil$")).wait_for()
    assert server.json("workspace")["categories"][2]["name"] == "oil"
    page.drag((82, 42), (100, 60), (118, 78))
    made = objects(server)[1]
    assert made["category"] == 3
    page.tab.keyboard.press("s")
    assert page.colour(100, 60) > 50 and page.colour(20, 18) < 40, "the selected object alone"
    page.tab.keyboard.press("s")
    assert page.colour(20, 18) > 50
    page.tab.keyboard.press("h")
    assert page.colour(100, 60) < 40
    page.tab.keyboard.press("p")
    page.drag((130, 100), (145, 100))
    assert page.colour(135, 100) > 50, "a brush is never without its mask"


def test_a_tab_of_work_that_is_no_longer_served_changes_nothing_of_the_next(
    page: Page, server: Serve, data: list[Any], tmp_path: Path
) -> None:
    server.kill()
    page.tab.keyboard.press(".")
    page.tab.keyboard.press("x")  # has no answer
    page.tab.locator('#saved[data-state="lost"]').wait_for()
    other = Serve(*[tmp_path / "other" if one == tmp_path / "work" else one for one in data], port=server.port)
    other.start()
    try:
        page.tab.locator("#saved-text", has_text="other work").wait_for()
        assert objects(server)[0]["state"] == "new"
    finally:
        other.kill()
    server.start()
    page.saved()
    assert objects(server)[0]["state"] == "rejected"
    server.kill()
    other.start()
    try:  # with nothing unsaved the page becomes the other work's
        page.tab.wait_for_function(
            "async () => (await import('/static/state.js')).state.picture?.objects[0]?.state === 'new'"
        )
    finally:
        other.kill()
