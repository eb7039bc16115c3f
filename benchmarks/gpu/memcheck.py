"""compute-sanitizer over a command: errors of memory, and apart from them CUDA calls that returned an error.

    python benchmarks/gpu/memcheck.py [--tool memcheck] -- python -m pytest ...

A call that fails is no fault by itself: tests ask for more memory than there is, and cuda-bindings looks up every
function that it knows, of which an older driver lacks some. Both kinds are counted, and kept with their first lines in
WORK/memcheck.json; the exit code is 1 for errors of memory, else the command's own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

WORK = Path(os.environ.get("WORK", "/tmp/gpu"))
PREFIX = "========="
CALL = re.compile(r"Program hit (.+?) \(error \d+\).* on CUDA API call to (\w+)")
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?")
# How lines begin that begin no report.
NOT_REPORTS = ("COMPUTE-SANITIZER", "ERROR SUMMARY", "LEAK SUMMARY", "Target application", "No CUDA", "Error:")
KEPT = 20  # first lines of errors of memory


def sort(log: str) -> dict[str, Any]:
    """Counts of a log's reports. A report's first line is flush behind the prefix, what belongs to it is indented.

    calls: "function: error" -> how often. memory: first lines -> how often. counted: the tool's own sum, None where it
    ended before that.
    """
    calls: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for line in log.splitlines():
        text = line.removeprefix(PREFIX + " ")
        if text == line or not text.strip() or text[0] == " " or text.startswith(NOT_REPORTS):
            continue
        if found := CALL.match(text):
            calls[f"{found[2]}: {found[1]}"] += 1
        else:
            memory[text.strip()] += 1
    sums = SUMMARY.findall(log)
    return {
        "calls": dict(calls.most_common()),
        "memory": dict(memory.most_common(KEPT)),
        "memory_errors": sum(memory.values()),
        "counted": int(sums[-1]) if sums else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default="memcheck", help="of compute-sanitizer: memcheck, initcheck or racecheck")
    parser.add_argument("--sanitizer", default="compute-sanitizer", help="the program")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    log = WORK / f"{arguments.tool}.log"
    log.unlink(missing_ok=True)
    # Calls are left on: a count of zero where some are known to fail would mean that nothing was looked at.
    options = ["--tool", arguments.tool, "--log-file", str(log), "--print-limit", "1000", "--show-backtrace", "no"]
    try:
        done = subprocess.run([arguments.sanitizer, *options, *arguments.command], check=False)
    except OSError as error:
        raise SystemExit(f"error: {arguments.sanitizer}: cannot be started ({error.strerror})") from None
    found = {"exit": done.returncode, **sort(log.read_text() if log.exists() else "")}
    (WORK / f"{arguments.tool}.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    if found["counted"] is None:
        raise SystemExit(f"error: {arguments.tool} did not come to its end; {log} has what it said")
    raise SystemExit(1 if found["memory_errors"] else done.returncode)


if __name__ == "__main__":
    main()
