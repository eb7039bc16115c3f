"""The page of a report, `index.html`: what stands on it before any script has run. Objects are filled in by scripts."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from mal_trt.base.version import __version__
from mal_trt.geometry.boxes import SizeClass
from mal_trt.report.content import Card, Content
from mal_trt.report.dom import Child, document, el
from mal_trt.report.shown import REASONS
from mal_trt.report.survey import Survey

# Only what lies in the folder; `file:` for browsers whose 'self' is nothing on a page opened from the disk.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)
SIZES = {SizeClass.SMALL: "small, up to 32²", SizeClass.MEDIUM: "medium, up to 96²", SizeClass.LARGE: "large"}
DASHES = ("mask", "drawn", "third", "fourth")  # classes of the layers' lines


def page(content: Content, survey: Survey, skipped: dict[str, int], figures: Sequence[Element]) -> bytes:
    """The HTML document. skipped: how many records for each reason."""
    shows = bool(len(survey))
    lead = content.subtitle if isinstance(content.subtitle, str) else content.subtitle(survey)
    links = [("figures", "Figures") if figures else None, ("objects", "Objects") if shows else None]
    links += [("skipped", "Skipped") if skipped else None, ("run", "The run")]
    nav = [el("a", text, href=f"#{name}") for name, text in filter(None, links)]
    parts: list[Child] = [
        el("h1", content.title),
        el("p", lead, class_="lead") if lead else None,
        _cards(content.cards(survey)),
        *(el("p", note, class_="note") for note in content.notes),
    ]
    if figures:
        parts.append(el("section", el("h2", "Figures"), el("div", *figures, class_="panels"), id="figures"))
    if shows:
        parts.append(_objects(content, survey))
    if skipped:
        parts.append(_skipped(skipped))
    parts.append(_run(content))
    scripts = ("data/index.js",) if shows else ()
    body = el(
        "body",
        el("a", "Skip to the content", href="#main", class_="skip"),
        el(
            "header", el("span", "mal-trt", class_="brand"), el("nav", *nav, aria_label="Parts of the report"), _theme()
        ),
        el("main", *parts, id="main", tabindex=-1),
        el("footer", f"Made by mal-trt {__version__}. Nothing on this page comes from or goes to a network."),
        _viewer(content.layers) if shows else None,
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content=f"mal-trt {__version__}"),
        el("title", f"{content.title} · mal-trt"),
        el("link", rel="stylesheet", href="assets/report.css"),
        el("script", src="assets/theme.js"),
        *(el("script", src=f"assets/{name}", defer="") for name in ("viewer.js", "objects.js")),
        *(el("script", src=name, defer="") for name in scripts),
    )
    return document(el("html", head, body, lang="en"))


def _theme() -> Element:
    return el("button", "Theme: as the system", type="button", id="theme", class_="quiet")


def _cards(cards: Sequence[Card]) -> Element | None:
    if not cards:
        return None
    made = [
        el("div", el("dt", card.title), el("dd", el("b", card.value), el("small", card.note) if card.note else None))
        for card in cards
    ]
    return el("dl", *made, class_="cards")


def _objects(content: Content, survey: Survey) -> Element:
    """The filters and the empty grid."""
    counts = [(survey["class"][survey.order] == number).sum() for number in range(len(survey.names))]
    classes = [
        (str(n), f"{name or '(no class)'} ({count:,})")
        for n, (name, count) in enumerate(zip(survey.names, counts, strict=True))
    ]
    has_iou = bool((survey["iou"] >= 0).any())
    has_score = bool((survey["score"] >= 0).any())
    sorts = [("iou-up", "lowest IoU first"), ("iou-down", "highest IoU first")] if has_iou else []
    sorts += [("score-up", "lowest score first"), ("score-down", "highest score first")] if has_score else []
    if survey.by == "score":
        sorts.sort(key=lambda sort: not sort[0].startswith("score"))
    sorts = [*(sorts or [("place", "in file order")]), ("random", "random")]
    reasons = [(str(bit), text) for bit, text in enumerate(REASONS) if bit or has_score]
    filters = el(
        "form",
        _choice("sort", "Order", sorts, first=None),
        _choice("class", "Class", classes),
        _choice("size", "Size of the box", [(str(int(size)), text) for size, text in SIZES.items()]),
        _choice("reason", "Worth a look", reasons),
        _choice("edges", "Sides of its box touched", [(str(n), f"{n} of 4") for n in range(5)]),
        _choice("border", "Picture's border", [("1", "at it"), ("0", "away from it")]),
        _layers(content.layers, "grid"),
        el("button", "Clear", type="reset", class_="quiet"),
        id="filters",
        aria_label="Which objects, in which order",
    )
    return el(
        "section",
        el("h2", "Objects"),
        filters,
        el("p", "Loading…", id="count", class_="count", role="status", aria_live="polite"),
        el("ul", id="grid", class_="grid", aria_label="Objects"),
        _pager("pager", "Pages of objects"),
        el("noscript", el("p", "The objects are shown by scripts, which this browser does not run.", class_="note")),
        id="objects",
    )


def _pager(name: str, label: str) -> Element:
    return el(
        "nav",
        el("button", "← Previous", type="button", data_step=-1),
        el("label", "Page ", el("input", type="number", min=1, value=1, inputmode="numeric"), el("span", " of 1")),
        el("button", "Next →", type="button", data_step=1),
        id=name,
        class_="pager",
        aria_label=label,
    )


def _choice(name: str, label: str, options: Sequence[tuple[str, str]], first: str | None = "all") -> Element:
    made = [el("option", first, value="")] if first is not None else []
    made += [el("option", text, value=value) for value, text in options]
    return el("label", el("span", label), el("select", *made, name=name))


def _layers(layers: Sequence[str], where: str) -> Element:
    boxes = [
        el(
            "label",
            el("input", type="checkbox", checked="", data_layer=name),
            el("span", class_=f"swatch {name}", aria_hidden="true"),
            text,
            el("kbd", key) if where == "viewer" else None,
            class_="check",
        )
        for name, text, key in [
            *((n, t, str(k)) for k, (n, t) in enumerate(zip(DASHES, layers, strict=False), 1)),
            ("box", "box", "B"),
        ]
    ]
    return el("fieldset", el("legend", "Show"), *boxes, class_="layers")


def _viewer(layers: Sequence[str]) -> Element:
    """The dialog in which one object is looked at."""
    tools = [
        el("button", "−", type="button", data_zoom="out", aria_label="Zoom out", title="Zoom out (-)"),
        el("button", "+", type="button", data_zoom="in", aria_label="Zoom in", title="Zoom in (+)"),
        el("button", "Fit", type="button", data_zoom="fit", title="Whole crop (0)"),
    ]
    return el(
        "dialog",
        el(
            "header",
            el("button", "←", type="button", data_step=-1, aria_label="Previous object", title="Previous (←)"),
            el("h2", "", id="viewer-title"),
            el("button", "→", type="button", data_step=1, aria_label="Next object", title="Next (→)"),
            el("button", "Close", type="button", data_close="", title="Close (Esc)"),
        ),
        el("div", el("div", id="stage", tabindex=0, role="img"), el("div", *tools, class_="tools"), class_="canvas"),
        el("div", _layers(layers, "viewer"), el("dl", id="details"), class_="side"),
        id="viewer",
        aria_labelledby="viewer-title",
    )


def _skipped(skipped: dict[str, int]) -> Element:
    rows = [
        el("tr", el("th", reason, scope="row"), el("td", f"{n:,}", class_="number")) for reason, n in skipped.items()
    ]
    head = el("tr", el("th", "reason", scope="col"), el("th", "records", scope="col", class_="number"))
    reasons = el("table", el("caption", "Why records have no mask"), el("thead", head), el("tbody", *rows))
    columns = ("id", "image", "reason", "detail")
    heads = el("tr", *(el("th", name, scope="col") for name in columns))
    listed = el("table", el("caption", "Every record"), el("thead", heads), el("tbody", id="skipped-rows"))
    total = sum(skipped.values())
    return el(
        "section",
        el("h2", "Skipped"),
        el("div", reasons, class_="panel"),
        el("div", listed, class_="panel wide", tabindex=0, role="region", aria_label="Every skipped record"),
        _pager("skipped-pager", "Pages of skipped records"),
        id="skipped",
        data_count=total,
    )


def _run(content: Content) -> Element:
    rows = [el("div", el("dt", name), el("dd", value)) for name, value in content.facts]
    return el("section", el("h2", "The run"), el("dl", *rows, class_="facts panel"), id="run")
