from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets import sprites
from regard.datasets.sprites import EMOJI, SPRITE_PX, load_atlas, make_atlas, resized_sprite

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


def test_every_class_has_a_sprite_of_its_own_that_fills_its_square() -> None:
    atlas = load_atlas()
    assert atlas.shape == (len(EMOJI), SPRITE_PX, SPRITE_PX, 4)
    for sprite in atlas:
        rows, columns = np.nonzero(sprite[..., 3] > 30)
        assert max(np.ptp(rows), np.ptp(columns)) >= SPRITE_PX - 4
        assert min(np.ptp(rows), np.ptp(columns)) > SPRITE_PX / 4
    for index, sprite in enumerate(atlas):
        distance = np.abs(atlas.astype(float) - sprite).mean(axis=(1, 2, 3))
        assert (np.delete(distance, index) > 10).all()


def test_the_atlas_is_small_and_its_licence_lies_beside_it() -> None:
    folder = Path(sprites.__file__).parent
    assert (folder / "sprites.png").stat().st_size <= 90_000
    licence = (folder / "sprites.LICENSE.txt").read_text()
    assert "Apache License" in licence
    assert "Open Font License" in licence


def test_a_mirrored_sprite_is_the_other_way_round() -> None:
    colours, opacity = resized_sprite("truck", SPRITE_PX, mirrored=False)
    turned, turned_opacity = resized_sprite("truck", SPRITE_PX, mirrored=True)
    np.testing.assert_array_equal(turned_opacity, opacity[:, ::-1])
    np.testing.assert_array_equal(turned, colours[:, ::-1])


@pytest.mark.parametrize("side", [1, 7, 22, 64])
def test_a_resized_sprite_stays_within_the_range_of_colours(side: int) -> None:
    colours, opacity = resized_sprite("clock", side, mirrored=False)
    assert colours.shape == (side, side, 3)
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert 0 <= opacity.min() <= opacity.max() <= 1


@pytest.mark.parametrize(("name", "side", "complaint"), [("unicorn", 20, "no sprite of 'unicorn'"), ("dog", 0, "side")])
def test_what_is_no_sprite_is_named(name: str, side: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        resized_sprite(name, side, mirrored=False)


@pytest.mark.skipif(not FONT.is_file(), reason="the emoji font is not installed")
def test_the_font_gives_an_atlas_of_the_same_layout(tmp_path: Path) -> None:
    make_atlas(FONT, tmp_path / "atlas.png")
    with Image.open(tmp_path / "atlas.png") as atlas:
        assert (atlas.mode, atlas.size) == ("RGBA", (6 * SPRITE_PX, 4 * SPRITE_PX))
