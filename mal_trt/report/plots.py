"""Plots as inline SVG that takes its colours from the page, dark or light, and says its figures to screen readers.

Bars are all that is needed; matplotlib's SVG would know neither the page's colours nor its text size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from mal_trt.report.dom import Child, el

WIDTH, HEIGHT, LEFT, BASE, TOP = 460, 170, 40, 144, 12
BINS = 20


class Row(NamedTuple):
    """A row of a table of bars. share: the bar's length, 0 to 1, None for none. mark: attributes of its name as a
    button, such as {"data_class": 3}; None where its name is only text."""

    name: str
    number: str
    share: float | None
    value: str
    mark: dict[str, str | int | float | None] | None = None


def histogram(values: Sequence[float], title: str, unit: str = "objects") -> Element:
    """How many of `values`, 0 to 1, lie in each twentieth."""
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int(value * BINS)))] += 1
    most = max(*counts, 1)
    step = (WIDTH - LEFT) / BINS
    bars: list[Child] = []
    for index, count in enumerate(counts):
        high = (BASE - TOP) * count / most
        span = f"{100 * index // BINS} to {100 * (index + 1) // BINS} %"
        place = {"x": LEFT + index * step + 1, "width": step - 2, "y": BASE - high, "height": high}
        sides = {name: round(value, 1) for name, value in place.items()}
        bars.append(el("rect", el("title", f"{span}: {count:,} {unit}"), class_="bar", **sides))
    ticks: list[Child] = [
        el("text", f"{percent}", x=round(LEFT + (WIDTH - LEFT) * percent / 100, 1), y=BASE + 18, class_="tick middle")
        for percent in range(0, 101, 20)
    ]
    ticks[-1] = el("text", "100 %", x=WIDTH, y=BASE + 18, class_="tick end")
    lines: list[Child] = [
        el("line", x1=LEFT, x2=WIDTH, y1=BASE, y2=BASE, class_="axis"),
        el("text", f"{most:,}", x=LEFT - 6, y=TOP + 4, class_="tick end"),
        el("text", "0", x=LEFT - 6, y=BASE, class_="tick end"),
    ]
    said = f"{title}: " + "; ".join(
        f"{100 * i // BINS} to {100 * (i + 1) // BINS} percent: {count}" for i, count in enumerate(counts) if count
    )
    svg = el("svg", *lines, *bars, *ticks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said)
    return el("figure", el("figcaption", title), svg, class_="plot")


def bar_table(title: str, heads: tuple[str, str, str], rows: Sequence[Row], tall: bool = False) -> Element:
    """A table whose last column is drawn as bars too. heads: of the name, the count and the value. tall: it may have
    many rows, and scrolls by itself."""
    body = []
    for row in rows:
        name = (
            el("button", row.name, type="button", class_="link", **row.mark)
            if row.mark and row.number != "0"
            else row.name
        )
        bar = None
        if row.share is not None:
            width = round(100 * min(1.0, max(0.0, row.share)), 1)
            bar = el(
                "svg",
                el("rect", width=100, height=8, class_="track"),
                el("rect", width=width, height=8, class_="bar"),
                viewBox="0 0 100 8",
                preserveAspectRatio="none",
                aria_hidden="true",
                class_="meter",
            )
        cells = [el("th", name, scope="row"), el("td", row.number, class_="number"), el("td", bar, class_="metered")]
        body.append(el("tr", *cells, el("td", row.value, class_="number")))
    head = el("tr", *(el("th", text, scope="col") for text in heads[:2]), el("th", heads[2], scope="col", colspan=2))
    table = el("table", el("caption", title), el("thead", head), el("tbody", *body), class_="bars")
    if not tall:
        return el("div", table, class_="panel")
    return el("div", table, class_="panel tall", tabindex=0, role="region", aria_label=title)


def plain_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> Element:
    """A table of texts, wide if it must be; columns from `numbers_from` on hold numbers."""

    def kind(column: int) -> str | None:
        return "number" if column >= numbers_from else None

    head = el("tr", *(el("th", text, scope="col", class_=kind(column)) for column, text in enumerate(heads)))
    body = [el("tr", *(el("td", text, class_=kind(column)) for column, text in enumerate(row))) for row in rows]
    table = el("table", el("caption", title), el("thead", head), el("tbody", *body))
    return el("div", table, class_="panel wide", tabindex=0, role="region", aria_label=title)


def percent(value: float | None) -> str:
    """`62.1 %`, or a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"
