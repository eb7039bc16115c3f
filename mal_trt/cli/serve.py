"""The options of `mal-trt serve`. The work itself is in `serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from mal_trt.artifacts.models import BUNDLED
from mal_trt.cli.options import (
    MODELS,
    BackendOption,
    BatchOption,
    BoxesFormatOption,
    BoxesOption,
    CropsOption,
    DevicesOption,
    FlipOption,
    JsonOption,
    LabelThresholdOption,
    QuietOption,
    RefineOption,
    SecondPassOption,
    SlackOption,
    SplitOption,
    ThreadsOption,
    WeightsOption,
    needs,
    tell_of_checkpoints,
    threshold_of,
)


def serve(
    images: Annotated[
        str | None,
        Option(
            metavar="<path|url>",
            help="Pictures that can be asked for by name: a folder, a .tar, one file, or a URL of these. On the page: "
            "by default those that the boxes name.",
        ),
    ] = None,
    boxes: BoxesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    model: Annotated[str | None, Option(metavar="<model>", help=f"{MODELS}.")] = None,
    workspace: Annotated[
        Path, Option(help="The folder that the page's work is kept in; nothing is written elsewhere.")
    ] = Path("mal-trt-workspace"),
    host: Annotated[
        str, Option(help="The address to listen on. Any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="The port to listen on. 0: any that is free.")] = 8080,
    token: Annotated[
        str | None,
        Option(
            envvar="MAL_TRT_TOKEN",
            show_envvar=False,
            help="What clients must show. Better in the variable MAL_TRT_TOKEN, which other users do not see. Default: "
            "none, or for other addresses than this machine's a new one, which is printed.",
        ),
    ] = None,
    label_studio: Annotated[
        str | None,
        Option(
            metavar="<address>",
            envvar="LABEL_STUDIO_URL",
            show_envvar=False,
            help="The Label Studio that uploaded pictures are fetched from. Its access token is read from the variable "
            "LABEL_STUDIO_API_KEY.",
        ),
    ] = None,
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    slack: SlackOption = 0.0,
    second_pass: SecondPassOption = False,
    batch: BatchOption = None,
    device: DevicesOption = "auto",
    backend: BackendOption = "auto",
    crops: CropsOption = "auto",
    threads: ThreadsOption = None,
    max_body: Annotated[int, Option(min=1, help="Largest request, in MiB.")] = 64,
    max_pixels: Annotated[int, Option(min=1, help="Largest picture, in millions of pixels.")] = 67,
    max_boxes: Annotated[int, Option(min=1, help="Most boxes in a request.")] = 1000,
    queue: Annotated[int, Option(min=1, help="Most boxes that wait for the network; then clients get 503.")] = 4096,
    timeout: Annotated[float, Option(min=0.1, help="Seconds in which a request must be answered.")] = 120.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve masks over HTTP: a page to correct them on, a REST interface, Label Studio's and CVAT's."""
    tell_of_checkpoints(quiet)
    with needs("serve"):
        from mal_trt.serve.run import serve as run
        from mal_trt.serve.settings import Limits, ServeSettings, is_loopback
    made = token is None and not is_loopback(host)  # and nobody would know it if the address were not printed
    if made:
        import secrets

        token = secrets.token_urlsafe(24)
    limits = Limits(
        body=max_body << 20,
        pixels=max_pixels * 1_000_000,
        boxes=max_boxes,
        queue=max(queue, max_boxes),
        seconds=timeout,
    )
    settings = ServeSettings(
        model=model or BUNDLED,
        images=images,
        boxes=boxes,
        boxes_format=boxes_format,
        split=split,
        workspace=workspace,
        host=host,
        port=port,
        token=token,
        label_studio=label_studio,
        label_studio_key=os.environ.get("LABEL_STUDIO_API_KEY") if label_studio else None,
        device=device,
        backend=backend,
        batch=batch,
        crops=crops,
        threshold=threshold_of(threshold),
        flip=flip,
        refine=refine,
        weights=weights,
        slack=slack,
        second_pass=second_pass,
        threads=threads,
        limits=limits,
    )
    run(settings, _silent if quiet and not made else typer.echo)


def _silent(line: str) -> None:
    pass
