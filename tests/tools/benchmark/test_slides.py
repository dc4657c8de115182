from pathlib import Path

import numpy as np
import pytest

from regard.datasets.slides.opening import open_slide
from regard.datasets.slides.writing import write_slide
from regard.tools.benchmark.slides import _mirrored, lines, texture
from regard.tools.settings import BenchmarkSlidesSettings


def test_the_slide_that_is_measured_continues_without_seams(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.svs", _mirrored(), size=(1300, 1300), levels=(1,), quality=None)
    pixels = open_slide(tmp_path / "a.svs").read(0, 0, 1300, 1300)
    np.testing.assert_array_equal(pixels[:1024, :1024], texture())
    np.testing.assert_array_equal(pixels[:, 1023], pixels[:, 1024])


def test_a_slide_that_is_too_small_is_named() -> None:
    with pytest.raises(ValueError, match="--slides is 300; give 4352 or more"):
        BenchmarkSlidesSettings(slides=[8192, 300])


def test_each_rival_has_its_line_and_memory_one() -> None:
    speeds = {"ours": 300.0, "openslide": 100.0, "tiffslide": 150.0}
    ratios = {"openslide": [2.9, 3.0, 3.1], "tiffslide": [1.9, 2.0, 2.1]}
    reading = {"side": 8192, "what": "aligned", "patches_per_s": speeds, "times_faster": ratios}
    found = lines([reading, {"side": 100_000, "what": "memory", "mb": 371.2}])
    assert [line["times faster"] for line in found] == ["3.00 (2.90-3.10)", "2.00 (1.90-2.10)", ""]
    assert found[2]["ours"] == "371 MB"
    assert len({tuple(line) for line in found}) == 1
