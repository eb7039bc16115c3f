"""Boxes in, masks out: Mask Auto-Labeler (MAL) on any machine."""

from __future__ import annotations

__version__ = "0.1.0"
