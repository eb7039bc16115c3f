"""What a verb says: its result to people, or with --json to a program; its messages on standard error.

With --json standard output carries one document, whatever happens. Other libraries, and processes started meanwhile,
may print there too: until the document is written, all of that goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import typer

# Of the frame around the results; a key that is removed, renamed or given another meaning raises it.
SCHEMA = 1
TEXTS = ("--help", "--version", "--print-spec", "--install-completion", "--show-completion")


@dataclass
class Answer:
    """What --json will print."""

    verb: str | None = None
    result: Any = None
    error: str | None = None
    exit: int = 0

    def document(self) -> dict[str, Any]:
        """As JSON values: `schema`, `verb`, `exit`, and `result` or `error` or both."""
        said = {"result": self.result, "error": self.error}
        document = {"schema": SCHEMA, "verb": self.verb, "exit": self.exit}
        return {**document, **{name: plain(value) for name, value in said.items() if value is not None}}


_ANSWER: ContextVar[Answer | None] = ContextVar("answer", default=None)
_GOES_ON: ContextVar[str] = ContextVar("goes_on", default="")
WITH_RESUME, THE_SAME = "run again with --resume", "run the same again"


def tell(result: Callable[[], Any], show: Callable[[], None], quiet: bool = False) -> None:
    """The result of a verb. result: makes what --json prints. show: prints it for people, unless `quiet`.

    What is told stays in the document should the verb fail afterwards.
    """
    answer = _ANSWER.get()
    if answer is not None:
        answer.result = result()
    elif not quiet:
        show()


def show_skipped(reasons: Mapping[str, int], what: str = "skipped", listed: object = None) -> None:
    """How many records are left out, and how many of them for each reason. listed: the file that names each, if any."""
    if not reasons:
        return
    typer.echo(f"{sum(reasons.values()):,} {what}" + (":" if listed is None else f", listed in {listed}:"))
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        typer.echo(f"  {count:8,}  {reason}")


def failed(verb: str | None, message: str, code: int, line: str | None = None) -> None:
    """Why a verb failed, for people as `line`, or as "error: message"."""
    answer = _ANSWER.get()
    if answer is None:
        typer.echo(line or f"error: {message}", err=True)
    else:
        answer.verb, answer.error, answer.exit = verb, message, code


def goes_on(how: str) -> None:
    """Tell how the work that begins now is gone on with, should it be interrupted; "" if not at all."""
    _GOES_ON.set(how)


def interruption() -> str:
    """What to say of an interrupted verb."""
    how = _GOES_ON.get()
    return f"interrupted; {how}" if how else "interrupted"


def messages(quiet: bool) -> Callable[[str], None]:
    """Prints lines on standard error, or nothing if `quiet`."""
    return (lambda text: None) if quiet else lambda text: typer.echo(text, err=True)


def wants_json(words: Sequence[str]) -> bool:
    """Whether these words of a command ask for JSON. What is a text by nature, such as --help, stays one."""
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options and not any(text in options for text in TEXTS)


def answered(words: Sequence[str], run: Callable[[], Any]) -> int:
    """Run a command and print its document; the exit code. run: returns one or None, and raises for bad options."""
    answer = Answer(verb=next((word for word in words if not word.startswith("-")), None))
    token = _ANSWER.set(answer)
    try:
        with _stdout_kept():
            code = run()
        answer.exit = code if isinstance(code, int) else 0
    except SystemExit as stop:
        answer.exit = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        told = getattr(error, "format_message", None)  # what the parser of the options says
        if told is None:
            answer.error, answer.exit = f"{type(error).__name__}: {error}", 1
            raise
        answer.error, answer.exit = told(), getattr(error, "exit_code", 2)
    finally:
        _ANSWER.reset(token)
        if answer.exit and answer.error is None:
            answer.error = "stopped"
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the first of several processes speaks for all
            _print(answer)
    return answer.exit


def plain(value: Any) -> Any:
    """A value as JSON has it: paths and other objects as text, what is not finite as null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy's
        return plain(value.tolist())
    return str(value)


def _print(answer: Answer) -> None:
    try:
        print(json.dumps(answer.document(), indent=1), flush=True)
    except OSError as error:
        answer.exit = 1
        typer.echo(f"error: standard output cannot be written ({error.strerror or error})", err=True)
        with suppress(OSError, ValueError):  # or Python says it again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """What is printed meanwhile, here or by a process started here, goes to standard error."""
    try:
        sys.stdout.flush()
        number, beside = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # no files, as in a notebook
        with redirect_stdout(sys.stderr):
            yield
        return
    kept = os.dup(number)
    os.dup2(beside, number)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
