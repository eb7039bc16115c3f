"""What aarch64_check.sh found, as JSON; ends with 1 if a mask differs from those of this machine.

python scripts/aarch64_record.py HERE ROOT SECONDS [FILE]: HERE holds labels.json of this machine and the packages of
the other, ROOT is the other's root.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree


def main(here: Path, root: Path, seconds: int, out: Path | None) -> int:
    ours, theirs = masks(here / "labels.json"), masks(root / "opt" / "labels.json")
    equal = sum(theirs.get(key) == mask for key, mask in ours.items())
    suite = ElementTree.parse(root / "opt" / "tests.xml").getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    packages = json.loads((here / "packages.json").read_text())
    qemu = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True, check=True).stdout
    found = {
        "command": "sh scripts/aarch64_check.sh",
        "date": date.today().isoformat(),
        "emulator": "QEMU " + (re.findall(r"version (\S+)", qemu) or ["?"])[0],
        "host": f"{platform.machine()}, {cpu()}",
        "system": "Debian " + (root / "etc" / "debian_version").read_text().strip() + ", arm64",
        "packages": {package["name"]: package["version"] for package in packages},
        "masks": {"of the example photos": len(theirs), "equal to those of this machine to the byte": equal},
        "tests": {"passed": counts["tests"] - sum(list(counts.values())[1:]), **counts},
        "failed": [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None],
        "tests_seconds": round(float(suite.get("time", 0))),
        "seconds": seconds,
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return 0 if equal == len(ours) == len(theirs) else 1


def masks(path: Path) -> dict[int, object]:
    """The run lengths of each label, by its id."""
    return {record["id"]: record["segmentation"] for record in json.loads(path.read_text())["annotations"]}


def cpu() -> str:
    """The processor's name, as Linux says it."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else "?"


if __name__ == "__main__":
    _, folder, other, took, *record = sys.argv
    sys.exit(main(Path(folder), Path(other), int(took), Path(record[0]) if record else None))
