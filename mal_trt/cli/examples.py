"""`mal-trt examples`: the example photos with their boxes and points, copied out of the package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import make_folder, write_whole
from mal_trt.cli.options import JsonOption, QuietOption
from mal_trt.cli.output import tell


def examples(
    folder: Annotated[Path, Argument(metavar="DIR", help="The folder to write.", show_default=True)] = Path("examples"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the example photos, their boxes and points into a folder.

    Files that are there already with the same content stay; if any other is in the way, nothing is written.
    """
    contents = _contents()
    paths = {folder / name: content for name, content in contents.items()}
    for path, content in paths.items():
        try:
            other = (path.exists() or path.is_symlink()) and not (path.is_file() and path.read_bytes() == content)
        except OSError as error:
            raise InputError(f"{path}: cannot be looked at ({error.strerror}); choose another folder") from None
        if other:
            raise InputError(f"{path}: exists with other content and is never overwritten; choose another folder")
    for place in sorted({path.parent for path in paths}):
        make_folder(place)
    for path, content in paths.items():
        if not path.exists():
            write_whole(path, content)
    tell(lambda: {"out": folder, "files": list(contents)}, lambda: _show(folder, len(contents)), quiet)


def _contents() -> dict[str, bytes]:
    """Every file of the examples, by its path in the folder."""
    from importlib.resources import files

    package = files("mal_trt.examples")
    photos = sorted(file.name for file in (package / "photos").iterdir() if file.name.endswith(".jpg"))
    names = ["boxes.json", "points.json", *(f"photos/{name}" for name in photos)]
    return {name: package.joinpath(name).read_bytes() for name in names}


def _show(folder: Path, count: int) -> None:
    typer.echo(f"{folder}: {count} files; their licences are in the NOTICE of mal-trt")
    photos, boxes = (shlex.quote(str(folder / name)) for name in ("photos", "boxes.json"))
    typer.echo(f"try: mal-trt label --images {photos} --boxes {boxes} --out labels.json")
