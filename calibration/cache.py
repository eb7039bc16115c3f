"""What a calibration measured, kept for the next one; used only if everything it depends on is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import replaced
from mal_trt.calibration.activations import Measured
from mal_trt.calibration.gate import Cost
from mal_trt.calibration.observe import Spectrum
from mal_trt.calibration.sample import Spot
from mal_trt.formats.images import ImageProblem, open_images

# What turns a picture and a box into a crop.
PIPELINE = (
    *("geometry/boxes.py", "geometry/crops.py", "formats/image_source.py"),
    *("formats/pixels.py", "formats/jpeg.py", "formats/depth.py"),
)
MEANING = {
    "model": "the model",
    "data": "the boxes or pictures",
    "pipeline": "this mal-trt's crop pipeline",
    "settings": "the settings",
}

Key = Mapping[str, str]


def cache_key(model: Path, spots: Sequence[Spot], settings: Mapping[str, object]) -> dict[str, str]:
    """SHA-256 of each thing that spectra and costs depend on. Boxes count as drawn, pictures by their bytes."""
    package = files("mal_trt")
    return {
        "model": _sha256([model.read_bytes()]),
        "data": _sha256(_data(spots)),
        "pipeline": _sha256(package.joinpath(name).read_bytes() for name in PIPELINE),
        "settings": _sha256([json.dumps(settings, sort_keys=True).encode()]),
    }


class Cache:
    """A cache file, or none if `path` is None: then nothing is kept.

    key: of `cache_key`; it reads all pictures, and is not called before it is needed. measured: None before it is
    stored. InputError if the file belongs to something else.
    """

    def __init__(self, path: Path | None, key: Callable[[], Key]) -> None:
        self._path, self._make_key = path, key
        self.measured: Measured | None = None
        self._costs: dict[str, list[Cost]] = {}
        if path is not None and path.exists():
            self._read(path)

    @cached_property
    def _key(self) -> Key:
        return self._make_key()

    def store_measured(self, measured: Measured) -> None:
        """Keep the spectra of all layers."""
        self.measured = measured
        self._write()

    def costs(self, how: str) -> dict[str, Cost]:
        """Costs of layers measured so far with the settings that `how` names."""
        return {cost.layer: cost for cost in self._costs.get(how, [])}

    def store_cost(self, how: str, cost: Cost) -> None:
        """Keep one layer's cost."""
        self._costs.setdefault(how, []).append(cost)
        self._write()

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                key: dict[str, str] = json.loads(str(archive["key"]))
                names, counts = archive["layers"], archive["counts"]
                losses: dict[str, int] = json.loads(str(archive["losses"]))
                costs: dict[str, list[dict[str, object]]] = json.loads(str(archive["costs"]))
        except Exception:  # numpy and zipfile raise many kinds
            raise InputError(
                f"{path}: not a calibration cache, or a damaged one; give another --cache, or delete it"
            ) from None
        changed = [meaning for name, meaning in MEANING.items() if key.get(name) != self._key[name]]
        if changed:
            raise InputError(
                f"{path}: a stale cache, {' and '.join(changed)} changed since; delete it, or give another --cache"
            )
        spectra = {str(name): Spectrum(row) for name, row in zip(names, counts, strict=True)}
        self.measured = Measured(spectra, **losses)
        self._costs = {how: [Cost(**entry) for entry in entries] for how, entries in costs.items()}  # type: ignore[arg-type]

    def _write(self) -> None:
        if self._path is None or self.measured is None:
            return
        measured = self.measured
        with replaced(self._path) as part, part.open("wb") as file:
            np.savez_compressed(
                file,
                key=json.dumps(dict(self._key)),
                layers=np.array(list(measured.spectra)),
                counts=np.stack([spectrum.counts for spectrum in measured.spectra.values()]),
                losses=json.dumps({name: getattr(measured, name) for name in ("crops", "unreadable", "blank")}),
                costs=json.dumps({how: [asdict(c) for c in costs] for how, costs in self._costs.items()}),
            )


def _data(spots: Sequence[Spot]) -> Iterable[bytes]:
    sources = {images: open_images(images) for images in {spot.images for spot in spots}}
    seen: set[tuple[str | Path, str]] = set()
    for spot in spots:
        yield json.dumps([spot.picture, spot.width, spot.height, spot.box, spot.record], sort_keys=True).encode()
        if (spot.images, spot.picture) not in seen:
            seen.add((spot.images, spot.picture))
            with suppress(ImageProblem):  # such a picture gives no crop
                yield sources[spot.images].read(spot.picture)


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()
