"""What mkdocs does here besides: options come from the command itself, so no page can tell of one that is not there.

`<!-- options: VERB -->` becomes a table of the verb's options, `<!-- options: package triton -->` of those of a part of
it. Pictures of examples/ are taken from where they are.
"""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import typer
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

from mal_trt.cli import app

ROOT = Path(__file__).parent.parent
FOLDERS = ("training", "export", "calibration", "engines", "examples")
OPTIONS = re.compile(r"<!-- options: ([\w -]+) -->")
SHEET = "examples/contact_sheet.jpg"


@event_priority(100)  # before mkdocstrings, which passes over a folder that is not there yet
def on_config(config: Any) -> Any:
    """The sources laid out as the package is, for the reference; mkdocs.yml names the folder."""
    tree = ROOT / "build" / "docs" / "mal_trt"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for place in [*(ROOT / "mal_trt").iterdir(), *(ROOT / folder for folder in FOLDERS)]:
        (tree / place.name).symlink_to(place)
    return config


def on_files(files: Any, config: Any) -> Any:
    files.append(File.generated(config, SHEET, abs_src_path=str(ROOT / SHEET)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    depth = page.file.src_uri.count("/")
    markdown = markdown.replace("../" * (depth + 1) + SHEET, "../" * depth + SHEET)
    return OPTIONS.sub(lambda found: options(found[1]), markdown)


def options(verb: str) -> str:
    """The options of a verb as a Markdown table, as `mal-trt VERB --help` tells them."""
    command: Any = typer.main.get_command(app)
    for part in verb.split():
        command = command.commands[part]
    context = command.context_class(command, info_name=f"mal-trt {verb}")
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [f"| <code>{_cell(name)}</code> | {_cell(text)} |" for name, text in records if name != "--help"]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return escape(text.strip(), quote=False).replace("|", "&#124;")
