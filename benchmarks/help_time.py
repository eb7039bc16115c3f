"""Wall-clock time of `mal-trt --help`, a fresh process each time.

python benchmarks/help_time.py [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    program = Path(sys.executable).parent / "mal-trt"
    seconds, processor = [], []
    for _ in range(arguments.rounds):
        started, before = time.perf_counter(), os.times()
        subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
        after = os.times()
        processor.append(after.children_user - before.children_user)
        processor[-1] += after.children_system - before.children_system
    median, worst, cpu = statistics.median(seconds), max(seconds), statistics.median(processor)
    print(f"mal-trt --help: median {median:.3f} s, worst {worst:.3f} s of {arguments.rounds}")
    print(f"processor time: median {cpu:.3f} s")
    figures = {"median_s": median, "worst_s": worst, "processor_median_s": cpu}
    save(arguments.json, {**{k: round(v, 4) for k, v in figures.items()}, "rounds": arguments.rounds})


if __name__ == "__main__":
    main()
