"""Masks as the polygons of a format, simplified if asked, and what they lose as its readers fill them."""

from __future__ import annotations

import numpy as np

from mal_trt.geometry.fill import even_odd, painted
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.polygons import Part, Through, parts, single_line, three_points
from mal_trt.geometry.simplify import simplify
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options

# From a pixel's centre to the point that is written for it, so that readers who cut off what is behind the point and
# readers who round come to the same pixel.
ASIDE = -0.25


def centre_line(local: LocalMask, options: Options, losses: FormatLoss) -> np.ndarray:
    """The mask as one line through the centres of its pixels, float64 [n,2] picture pixels; see `single_line`."""
    found = _parts(local.mask, "centres", options, losses)
    line, lost = single_line(found)
    losses.parts += len(lost)
    line = three_points(line)
    losses.compare(local.mask, painted([line], *local.mask.shape))
    moved: np.ndarray = line + ASIDE + np.array([local.x0, local.y0])
    return moved


def painted_lines(local: LocalMask, options: Options, losses: FormatLoss) -> list[np.ndarray]:
    """A line for each part, its holes tied to it, through the centres of pixels, for readers who draw lines too."""
    lines = [three_points(part.line) for part in _parts(local.mask, "centres", options, losses)]
    read = np.zeros(local.mask.shape, bool)
    for line in lines:
        read |= painted([line], *local.mask.shape)
    losses.compare(local.mask, read)
    return [line + ASIDE + np.array([local.x0, local.y0]) for line in lines]


def edge_lines(local: LocalMask, options: Options, losses: FormatLoss) -> list[np.ndarray]:
    """A line for each part, its holes tied to it, along the edges of pixels, for readers who ask what lies inside."""
    return [part.line for part in edge_parts(local, options, losses)]


def edge_parts(local: LocalMask, options: Options, losses: FormatLoss) -> list[Part]:
    """The parts likewise, each with its holes as lines of their own."""
    found = _parts(local.mask, "corners", options, losses)
    if options.simplify:  # else they are exact
        losses.compare(local.mask, even_odd([line for part in found for line in part.lines], *local.mask.shape))
    corner = np.array([local.x0, local.y0])
    return [Part(part.outer + corner, tuple(hole + corner for hole in part.holes), part.pixels) for part in found]


def _parts(mask: np.ndarray, through: Through, options: Options, losses: FormatLoss) -> list[Part]:
    found = parts(mask, through)
    if not options.simplify:
        return found
    simple = []
    for part in found:
        outer = simplify(part.outer, options.simplify)
        holes = [line for hole in part.holes if len(line := simplify(hole, options.simplify)) > 2]
        losses.holes += len(part.holes) - len(holes)
        simple.append(Part(outer if len(outer) > 2 else part.outer, tuple(holes), part.pixels))
    return simple
