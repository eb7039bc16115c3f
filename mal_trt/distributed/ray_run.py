"""Shards labelled on a Ray cluster, by Ray Data: a pool of actors with a model each, that nodes may leave.

A shard appears in one step, so a shard that Ray gives to a second actor, because the first one died, is either made
again or found to be there.
"""

from __future__ import annotations

import json
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, MalTrtError, RunError, one_line
from mal_trt.base.outputs import write_whole
from mal_trt.base.remote import is_url
from mal_trt.distributed.shard_labeler import Done, ShardLabeler, ShardRun, check_versions, running_versions

LOCAL, AUTO = "local", "auto"
LARGEST_SENT = 1 << 30  # bytes of a model that is sent to the workers


def connect(address: str) -> Any:
    """Ray, connected; RunError in one line if it cannot be."""
    try:
        import ray
    except ModuleNotFoundError:
        raise RunError('--ray needs ray; run: pip install "mal-trt[ray]"') from None
    if not ray.is_initialized():
        try:
            where = {} if address == LOCAL else {"address": address}
            ray.init(**where, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        except TypeError:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:
            raise RunError(
                f"Ray at {address}: cannot be reached ({one_line(error)}); "
                "start it with `ray start --head`, or give --ray local"
            ) from None
    quiet()
    return ray


def quiet() -> None:
    """Ray Data's bars and lines are not ours."""
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def run_on_ray(address: str, run: ShardRun, missing: Sequence[int], workers: int | None, gpus: float) -> Iterator[Done]:
    """Label these shards; yields each when it is there. workers: how many actors at most; None: as many as there is
    room for. gpus: of each."""
    ray = connect(address)
    settings, model = run.settings, Path(run.settings.model)
    content = None
    if model.suffix.lower() == ".onnx" and model.stat().st_size <= LARGEST_SENT:
        content = ray.put(model.read_bytes())
    most = workers or _room(ray, settings.threads, gpus)
    out = run.out if is_url(run.out) else str(Path(run.out).resolve())
    actor = {"run": replace(run, out=out), "model": content, "versions": running_versions()}
    shards = ray.data.from_items([{"number": number} for number in missing], override_num_blocks=len(missing))
    made = shards.map_batches(
        _Actor,
        fn_constructor_kwargs={"given": actor},
        batch_size=1,
        concurrency=(1, max(1, min(most, len(missing)))),
        num_cpus=settings.threads,
        num_gpus=gpus or None,
    )
    try:
        for row in made.iter_rows():
            answer = json.loads(row["answer"])
            if "error" in answer:
                raise (InputError if answer["input"] else RunError)(answer["error"])
            yield Done(**answer)
    except MalTrtError:
        raise
    except Exception as error:
        why = one_line(error, 300)
        raise RunError(f"Ray: the run failed ({why}); the shards that are there stay, run again") from None


def _room(ray: Any, threads: int, gpus: float) -> int:
    """Actors that the cluster has room for."""
    there = ray.cluster_resources()
    room = int(there.get("CPU", 1) // threads)
    return max(1, min(room, int(there.get("GPU", 0) / gpus)) if gpus else room)


class _Actor:
    """A process with a model. What goes wrong becomes a row: Ray would try an exception again without end."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._error: MalTrtError | None = None
        self._labeler: ShardLabeler | None = None
        try:
            check_versions(given["versions"])
            run: ShardRun = given["run"]
            settings = run.settings
            if given["model"] is not None:
                settings = replace(settings, model=kept_model(lambda: _sent(given["model"]), run.model_sha256))
            elif not Path(settings.model).is_file():
                raise InputError(
                    f"{settings.model}: not on host {socket.gethostname()}; an engine must lie at the same path on "
                    "every machine"
                )
            self._labeler = ShardLabeler(replace(run, settings=settings))
        except MalTrtError as error:
            self._error = error

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        # As JSON: a column of dicts would give every row the reasons of all.
        return {"answer": [json.dumps(self._answer(int(number))) for number in rows["number"]]}

    def _answer(self, number: int) -> dict[str, Any]:
        try:
            if self._labeler is None:
                raise self._error or RunError("no model")
            return asdict(self._labeler.label(number))
        except MalTrtError as error:
            return {"error": str(error), "input": isinstance(error, InputError)}


def _sent(content: Any) -> bytes:
    import ray

    found: bytes = ray.get(content)
    return found


def kept_model(content: Callable[[], bytes], sha: str) -> Path:
    """A model's file on this machine, made of what the driver sent."""
    folder = Path(tempfile.gettempdir()) / "mal-trt-models"
    folder.mkdir(exist_ok=True)
    file = folder / f"{sha}.onnx"
    if not file.is_file():
        write_whole(file, content())
    return file
