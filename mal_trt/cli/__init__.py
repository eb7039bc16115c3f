"""The `mal-trt` command: one verb per stage. A verb imports its worker only when it runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from mal_trt.base.errors import MalTrtError
from mal_trt.base.signals import unwound_when_ended
from mal_trt.base.version import __version__
from mal_trt.cli.benchmark import benchmark
from mal_trt.cli.build_engine import build_engine
from mal_trt.cli.calibrate import calibrate
from mal_trt.cli.compare import compare
from mal_trt.cli.convert import convert
from mal_trt.cli.doctor import doctor
from mal_trt.cli.evaluate import evaluate
from mal_trt.cli.examples import examples
from mal_trt.cli.export import export
from mal_trt.cli.inspect import inspect
from mal_trt.cli.label import label
from mal_trt.cli.merge import merge
from mal_trt.cli.options import MissingPackage
from mal_trt.cli.output import answered, failed, goes_on, interruption, wants_json
from mal_trt.cli.package import package
from mal_trt.cli.prune import prune
from mal_trt.cli.report import report
from mal_trt.cli.serve import serve
from mal_trt.cli.train import train

INTERRUPTED = 130


class _Verbs(TyperGroup):
    """Runs a verb; the one place where failures become one line, or one document, and an exit code."""

    def main(self, *given: Any, **more: Any) -> Any:
        args = given[0] if given else more.pop("args", None)
        words = sys.argv[1:] if args is None else list(args)
        if not wants_json(words):
            return super().main(args, *given[1:], **more)
        more, standalone = {**more, "standalone_mode": False}, more.get("standalone_mode", True)
        code = answered(words, lambda: super(_Verbs, self).main(words, *given[1:], **more))
        return sys.exit(code) if standalone else code

    def invoke(self, ctx: Any) -> Any:
        goes_on("")
        with unwound_when_ended() as ending:
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                verb = ctx.invoked_subcommand
                if ending.asked or isinstance(error, KeyboardInterrupt):
                    said = interruption()
                    failed(verb, said, INTERRUPTED, line=said)
                    raise typer.Exit(INTERRUPTED) from None
                if not isinstance(error, MalTrtError):
                    raise
                whose = f"`mal-trt {verb}` " if isinstance(error, MissingPackage) else ""
                listed = getattr(error, "listed", None)
                failed(verb, f"{whose}{error}" + (f" (each is listed in {listed})" if listed else ""), error.exit_code)
                raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=_Verbs,
    help="Turns bounding boxes into instance masks, with NVIDIA's Mask Auto-Labeler (MAL).",
    epilog="To begin: mal-trt label --images PICTURES --boxes BOXES --out labels.json",
    no_args_is_help=True,
    # Rich's help costs twice the time of the whole command.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mal-trt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


VERBS = (
    *(label, merge, convert, report, evaluate, compare, benchmark),
    *(export, train, prune, calibrate, build_engine, serve, inspect, doctor),
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(package, name="package")
app.command()(examples)
app.command("inference", hidden=True)(label)  # what TAO calls it


def main() -> None:
    """Entry point of the `mal-trt` command."""
    app()
