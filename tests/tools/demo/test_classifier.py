"""`regard demo classifier`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jobs import run
from PIL import Image


def test_demo_trains_twins_and_plots_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "classifier", "--epochs", "4", "--attention", "ela", "--out", tmp_path) == 0
    table = capsys.readouterr().out
    assert "ela" in table
    assert "softmax" in table
    for name in ("curves.png", "ela/confusion.png", "softmax/confusion.png"):
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn
