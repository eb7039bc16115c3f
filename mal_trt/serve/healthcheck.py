"""The health check of our containers: whether the server answers, where the container's command is one."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

SECONDS = 4.0


def port_of(command: Sequence[str]) -> int | None:
    """The port of a `mal-trt serve ...`, None for any other command."""
    if "serve" not in command:
        return None
    words = list(command[command.index("serve") + 1 :])
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == "--port":
            return int(value or words[place + 1])
    return 8080


def main() -> int:
    """0 if all is well."""
    command = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    port = port_of(command)
    if port is None:
        return 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=SECONDS) as answer:
        return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
