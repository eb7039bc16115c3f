"""What the routes of one server share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request

from mal_trt.serve.desk import Desk
from mal_trt.serve.inference import Inference
from mal_trt.serve.metrics import Metrics
from mal_trt.serve.pictures import Pictures
from mal_trt.serve.settings import ServeSettings


@dataclass
class State:
    """settings: what it was started with. inference: the model. pictures: those of --images. pool: threads for what
    would hold up the event loop, such as decoding. desk: the page's work. stopping: it takes no new work."""

    settings: ServeSettings
    inference: Inference
    pictures: Pictures
    metrics: Metrics
    pool: ThreadPoolExecutor
    desk: Desk
    stopping: bool = False


def state_of(request: Request) -> State:
    """The state of the server that a request came to."""
    state: State = request.app.state.serve
    return state
