"""The Dockerfiles: linted, pinned, of a user without rights, and copying all that the package is made of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def test_there_are_three() -> None:
    assert [file.name for file in FILES] == ["Dockerfile.cpu", "Dockerfile.cuda", "Dockerfile.l4t"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix[1:])
def test_hadolint(file: Path) -> None:
    own = Path(sys.executable).with_name("hadolint")
    hadolint = str(own) if own.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (the extra dev has it, on Linux)")
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix[1:])
def test_what_it_is_made_of(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    images = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(images) == 2 and all(re.search(r":[a-z]?\d+\.\d+", image) for image in images), "tags name a version"
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER \d{5}$", last, re.M), "runs as a user without rights, by number"
    assert '\nENTRYPOINT ["mal-trt"]\n' in last and "-c /tmp/constraints.txt" in last
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M) for word in line.split()]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in copied if f"!{name.split('/')[0]}" not in ignored] == [], "the builder never sees it"
    folders = re.search(
        r"^\[tool\.setuptools\.package-dir\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert folders is not None
    parts = re.findall(r'= "(\w+)"', folders[1])
    assert len(parts) == 6 and set(parts) <= set(copied), "the wheel would lack a part of the package"
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= set(copied), "the wheel's metadata name these"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix[1:])
def test_every_version_is_pinned(file: Path) -> None:
    """The constraints that it copies hold each dependency of the extra that it installs."""
    requirements = pytest.importorskip("packaging.requirements")
    text = file.read_text(encoding="utf-8")
    (extras,) = re.findall(r"mal-trt\[([\w,]+)\] @ file", text)
    (constraints,) = re.findall(r"^COPY (\S+) /tmp/constraints.txt$", text, re.M)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    blocks = [
        re.search(rf"^{name} = \[(.*?)\]$", project, re.M | re.S) for name in ("dependencies", *extras.split(","))
    ]
    lines = [line for block in blocks if block for line in re.findall(r'"([^"]+)"', block[1])]
    python = "3.10" if extras == "jetson" else "3.12"
    wanted = [requirements.Requirement(line) for line in lines]
    wanted = [one for one in wanted if not one.marker or one.marker.evaluate({"python_version": python})]
    assert len(wanted) >= 7
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / constraints).read_text().splitlines()
        if line and not line.startswith("#")
    )
    for one in wanted:
        assert one.specifier.contains(pinned[one.name.lower()]), f"{constraints} lacks {one}"


def test_compose() -> None:
    """The server with Prometheus: pinned, reached from this machine alone, its token a secret."""
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    served, prometheus = compose["services"]["mal-trt"], compose["services"]["prometheus"]
    assert (ROOT / "docker" / served["build"]["context"] / served["build"]["dockerfile"]).exists()
    assert re.search(r":v\d+\.\d+\.\d+$", prometheus["image"])
    for service in (served, prometheus):
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["secrets"] == ["token"]
    assert "/docker/token" in (ROOT / ".gitignore").read_text().splitlines()
    read = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text(encoding="utf-8"))
    assert read["scrape_configs"][0]["static_configs"][0]["targets"] == ["mal-trt:8080"]


def test_the_command_of_compose_is_one_of_ours() -> None:
    yaml = pytest.importorskip("yaml")
    typer = pytest.importorskip("typer")
    from mal_trt.cli import app

    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    verb, *words = compose["services"]["mal-trt"]["command"]
    known = {option for param in typer.main.get_command(app).commands[verb].params for option in param.opts}
    assert [word for word in words if word.startswith("-") and word not in known] == []


def test_the_health_check_asks_servers_alone() -> None:
    from mal_trt.serve.healthcheck import port_of

    assert port_of(["/usr/bin/python", "/usr/bin/mal-trt", "label", "--images", "photos"]) is None
    assert port_of(["python", "mal-trt", "serve", "--host", "0.0.0.0"]) == 8080
    assert port_of(["python", "mal-trt", "serve", "--port", "9000"]) == port_of(["serve", "--port=9000"]) == 9000
    for file in FILES[:2]:
        assert '"mal_trt.serve.healthcheck"' in file.read_text(encoding="utf-8")
