"""A report in a real browser, opened from the disk: its scripts run under its own policy, and names stay names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from mal_trt import write_report
from report_pages import NAMES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_objects_appear_under_their_names(labels: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    path, pictures = labels(60, per_picture=20)
    report = write_report(path, pictures, tmp_path / "report", progress=False)
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"),
            report.page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    page = done.stdout
    assert ">1 to 48 of 60 objects</p>" in page
    tiles = re.findall(r'<button[^>]* class="tile".*?</button>', page, re.S)
    assert len(tiles) == 48
    assert all(tile.count("<path") == 2 and tile.count("<img") == 1 for tile in tiles)
    # The lowest score stands first: that of the last label.
    assert [unescape(re.findall(r"<b>(.*?)</b>", tile, re.S)[0]) for tile in tiles] == [
        NAMES[(59 - place) % 3] for place in range(48)
    ]
    assert "alert(1)</script><" not in page and not re.search(r"<img[^>]*onerror", page)
    assert page.count("<script") == 5  # four of the page's and one page of data
