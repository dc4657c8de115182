"""Little images of 24 everyday things, to make up scenes of: an atlas of 48 px sprites in the package.

Source: the emoji of Google's Noto Color Emoji 2.042, as Debian packages it (fonts-noto-color-emoji); the font is
under OFL-1.1, its drawings are under Apache-2.0 (sprites.LICENSE.txt). The atlas was made once, with
`python -m regard.datasets.sprites NotoColorEmoji.ttf sprites.png`, and nothing needs the font any more: another
version of it, or of Pillow, would draw other pixels.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

__all__ = ["EMOJI", "SPRITE_PX", "load_atlas", "make_atlas", "resized_sprite"]

#: Name of a class, as in COCO -> its emoji. The order is that of the atlas, and the number of a class everywhere.
EMOJI: dict[str, str] = {
    "pizza": "\N{SLICE OF PIZZA}",
    "knife": "\N{HOCHO}",
    "cup": "\N{HOT BEVERAGE}",
    "cake": "\N{BIRTHDAY CAKE}",
    "banana": "\N{BANANA}",
    "wine glass": "\N{WINE GLASS}",
    "car": "\N{AUTOMOBILE}",
    "traffic light": "\N{VERTICAL TRAFFIC LIGHT}",
    "person": "\N{STANDING PERSON}",
    "bicycle": "\N{BICYCLE}",
    "bus": "\N{BUS}",
    "truck": "\N{DELIVERY TRUCK}",
    "dog": "\N{DOG}",
    "frisbee": "\N{FLYING DISC}",
    "horse": "\N{HORSE}",
    "sheep": "\N{SHEEP}",
    "bird": "\N{BIRD}",
    "kite": "\N{KITE}",
    "laptop": "\N{PERSONAL COMPUTER}",
    "mouse": "\N{THREE BUTTON MOUSE}",
    "chair": "\N{CHAIR}",
    "couch": "\N{COUCH AND LAMP}",
    "book": "\N{OPEN BOOK}",
    "clock": "\N{ALARM CLOCK}",
}
#: Side of a sprite in the atlas.
SPRITE_PX = 48
_COLUMNS = 6
_FONT_PX = 109  # the only size that the font holds
_ATLAS = Path(__file__).with_name("sprites.png")


@lru_cache(maxsize=1)
def load_atlas() -> UInt8[np.ndarray, "classes side side 4"]:
    """The sprites, in the order of `EMOJI`: red, green, blue and opacity, 48 x 48 px each.

    Example:
        >>> load_atlas().shape
        (24, 48, 48, 4)
    """
    with Image.open(_ATLAS) as atlas:
        pixels = np.asarray(atlas.convert("RGBA"))
    rows = len(EMOJI) // _COLUMNS
    tiles = pixels.reshape(rows, SPRITE_PX, _COLUMNS, SPRITE_PX, 4).swapaxes(1, 2)
    sprites = tiles.reshape(len(EMOJI), SPRITE_PX, SPRITE_PX, 4)
    sprites.setflags(write=False)
    return sprites


@lru_cache(maxsize=2048)
def resized_sprite(
    name: str, side_px: int, mirrored: bool
) -> tuple[Float[np.ndarray, "side side 3"], Float[np.ndarray, "side side 1"]]:
    """One sprite in another size: its colours (0-255), and its opacity (0-1).

    Args:
        name: one of `EMOJI`.
        side_px: height and width, 1 or more.
        mirrored: left and right are swapped.

    Raises:
        ValueError: there is no such sprite, or no such size.

    Example:
        >>> colours, opacity = resized_sprite("dog", 32, mirrored=False)
        >>> colours.shape, opacity.shape
        ((32, 32, 3), (32, 32, 1))
    """
    if name not in EMOJI:
        raise ValueError(f"there is no sprite of {name!r}; known: {', '.join(EMOJI)}")
    if side_px < 1:
        raise ValueError(f"side_px is {side_px}, a sprite has at least 1 px")
    sprite = Image.fromarray(load_atlas()[list(EMOJI).index(name)], "RGBA")
    if mirrored:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(sprite.resize((side_px, side_px), Image.Resampling.BICUBIC), np.float32)
    colours, opacity = pixels[..., :3].copy(), pixels[..., 3:] / 255
    for part in (colours, opacity):
        part.setflags(write=False)
    return colours, opacity


def make_atlas(font: str | Path, out: str | Path) -> None:
    """Draw the atlas with the emoji font; needed once only.

    Args:
        font: NotoColorEmoji.ttf.
        out: PNG file to write, 6 sprites in a row.

    Raises:
        OSError: Pillow cannot read the font, or not at the one size it has.
    """
    letters = ImageFont.truetype(str(font), _FONT_PX)
    rows = len(EMOJI) // _COLUMNS
    atlas = Image.new("RGBA", (_COLUMNS * SPRITE_PX, rows * SPRITE_PX))
    for index, emoji in enumerate(EMOJI.values()):
        drawn = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(drawn).text((10, 10), emoji, font=letters, embedded_color=True)
        drawn = drawn.crop(drawn.getbbox())
        side = max(drawn.size)
        square = Image.new("RGBA", (side, side))
        square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        row, column = divmod(index, _COLUMNS)
        small = square.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS)
        atlas.paste(small, (column * SPRITE_PX, row * SPRITE_PX))
    atlas.save(out, optimize=True)


if __name__ == "__main__":
    make_atlas(*sys.argv[1:3])
