"""Requests counted and timed, by route and status."""

from __future__ import annotations

from time import monotonic

from mal_trt.serve.metrics import Metrics
from mal_trt.serve.security import App, Message, Receive, Scope, Send


class Counting:
    """An ASGI application around another, which tells the metrics of each answer."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(monotonic() - began)
