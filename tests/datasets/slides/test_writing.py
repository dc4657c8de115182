from pathlib import Path

import numpy as np
import pytest

from regard.datasets.slides.opening import open_slide
from regard.datasets.slides.writing import write_slide


def test_a_function_is_asked_for_each_tile_once_and_gives_the_same_file(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    asked = []

    def source(x: int, y: int, width: int, height: int) -> np.ndarray:
        asked.append((x, y, width, height))
        return image[y : y + height, x : x + width]

    for name, given, size in (("a", image, None), ("b", source, (200, 300))):
        write_slide(tmp_path / f"{name}.svs", given, size=size, mpp=0.5, levels=(1, 2, 8), tile=128)
    assert asked == [(x, y, min(128, 200 - x), min(128, 300 - y)) for y in (0, 128, 256) for x in (0, 128)]
    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()


def test_a_slide_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    def source(x: int, y: int, width: int, height: int) -> np.ndarray:
        if y:
            raise OSError("no more tiles")
        return np.zeros((height, width, 3), dtype=np.uint8)

    (tmp_path / "a.svs").write_text("before")
    with pytest.raises(OSError, match="no more tiles"):
        write_slide(tmp_path / "a.svs", source, size=(300, 600), levels=(1,))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_huge_slide_that_is_mostly_white_takes_little(tmp_path: Path) -> None:
    def source(x: int, y: int, width: int, height: int) -> np.ndarray | None:
        return np.full((height, width, 3), 90, np.uint8) if (x, y) == (9984, 19968) else None

    write_slide(tmp_path / "a.svs", source, size=(20_000, 30_000), mpp=0.25, levels=(1, 4, 16, 64))
    slide = open_slide(tmp_path / "a.svs")
    assert (slide.levels[0].width, slide.levels[3].height) == (20_000, 468)
    assert (tmp_path / "a.svs").stat().st_size < 1_000_000
    assert slide.read(10_000, 20_000, 1, 1).tolist() == [[[90, 90, 90]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (1, 3)}, "powers of two that divide the tile"),
        ({"levels": (2, 4)}, "give 1 first"),
        ({"levels": ()}, "give 1 first"),
        ({"levels": (1, 256)}, "has no level of 1/256"),
        ({"tile": 100}, "a multiple of 16"),
    ],
)
def test_wrong_levels_and_tiles_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_slide(tmp_path / "a.svs", np.zeros((200, 200, 3), dtype=np.uint8), **options)
    with pytest.raises(ValueError, match="needs the size of the slide"):
        write_slide(tmp_path / "a.svs", lambda *_: None)
