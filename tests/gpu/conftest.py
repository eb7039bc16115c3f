"""A GPU for tests. Without one they are skipped, with the reason: see the conftest of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mal_trt.cuda.driver import Driver
from mal_trt.cuda.open import installed, open_driver


@pytest.fixture(params=["cuda-python", "pycuda"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The first GPU, by every provider that is installed, current in the test's thread. All must be freed in it."""
    if request.param not in installed():
        pytest.skip(f"{request.param} is not installed")
    opened = open_driver(provider=request.param)
    try:
        with opened.current():
            yield opened
        assert not any(opened.living.values()), opened.living
    finally:
        opened.close()
