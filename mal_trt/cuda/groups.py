"""A batch in parts whose scratch memory is bounded."""

from __future__ import annotations

import numpy as np


def groups_within(limit: int, sizes: np.ndarray) -> list[tuple[int, int]]:
    """First and last (exclusive) of runs of items of at most `limit` bytes together; a larger item goes alone.

    sizes: bytes of each item, int [n].
    """
    groups = []
    first = held = 0
    for at, size in enumerate(sizes.tolist()):
        if at > first and held + size > limit:
            groups.append((first, at))
            first, held = at, 0
        held += size
    return [*groups, (first, len(sizes))]
