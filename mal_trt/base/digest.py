"""What a file is, whatever its name: its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal, read in blocks; InputError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()
