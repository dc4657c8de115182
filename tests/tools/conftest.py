"""Small data that the tests of the jobs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of class folders with small colour images."""

    def make(classes: Sequence[str] = ("cat", "dog", "owl"), each: int = 12, side: int = 40) -> Path:
        rng = np.random.default_rng(0)
        for name in classes:
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True)
            for index in range(each):
                pixels = rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
        return tmp_path / "photos"

    return make
