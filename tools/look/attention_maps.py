"""Attention maps: for every word of an answer, the image under the attention that predicted the word."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from ..train.plots import save_figure

__all__ = ["Row", "changed_words", "draw_attention", "tile", "words_seen"]

_ACROSS, _TILE_PX, _GAP_PX, _CAPTION_PX, _TITLE_PX = 10, 104, 8, 22, 34
_COLOURS = colormaps["inferno"]


@dataclass(frozen=True)
class Row:
    """One answer in the image.

    Attributes:
        title: what is written above it.
        words: captions of the tiles.
        seen: attention to the image for each word, (words, rows, columns), from the top left.
    """

    title: str
    words: Sequence[str]
    seen: np.ndarray


def words_seen(tokens: Sequence[str], seen: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Words from tokens, each with the mean attention of its tokens; a trailing full stop is ignored.

    Args:
        tokens: pieces of an answer; a word begins where a piece begins with a blank.
        seen: attention for each token, (tokens, rows, columns).

    Returns:
        The words, and the attention for each, (words, rows, columns).

    Example:
        >>> words_seen(["a", " tra", "ffic", " light"], np.zeros((4, 2, 3)))[0]
        ['a', 'traffic', 'light']
    """
    words: list[str] = []
    parts: list[list[int]] = []
    for index, token in enumerate(tokens):
        wide = token.strip()[:1] > "\u2e7f"  # scripts that write words without blanks between them
        if not words or token[:1].isspace() or tokens[index - 1][-1:].isspace() or wide:
            words.append("")
            parts.append([])
        words[-1] += token.strip()
        parts[-1].append(index)
    kept = [(word, part) for word, part in zip(words, parts, strict=True) if word]
    if not kept:
        return [], seen[:0]
    spoken = [[index for index in part if any(map(str.isalnum, tokens[index]))] or part for _, part in kept]
    return [word for word, _ in kept], np.stack([seen[part].mean(axis=0) for part in spoken])


def changed_words(words: Sequence[str], others: Sequence[str]) -> list[bool]:
    """Which words are not in the other answer, in its order.

    Example:
        >>> changed_words(["a", "cat", "sits"], ["a", "dog", "sits"])
        [False, True, False]
    """
    changed = [True] * len(words)
    for block in difflib.SequenceMatcher(None, others, words, autojunk=False).get_matching_blocks():
        changed[block.b : block.b + block.size] = [False] * block.size
    return changed


def tile(image: Image.Image, weights: np.ndarray, most: float) -> np.ndarray:
    """An image under attention: grey and dark where there is none, bright where there is much.

    Args:
        image: what the model saw, of any size.
        weights: attention, (rows, columns), from the top left.
        most: attention that has the brightest colour, above 0.

    Returns:
        Pixels (height, width, 3), 0-1; the longer side is as long as a tile.
    """
    size = _tile_size(image)
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=float)[..., None] / 255
    scores = Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    share = (np.asarray(scores, dtype=float) / most).clip(0, 1)
    cover = 0.6 * share[..., None] ** 0.7
    return (1 - cover) * (0.05 + 0.8 * grey) + cover * _COLOURS(share)[..., :3]


def draw_attention(image: Image.Image, rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw answers word by word, the first one as it is, and the words of the others that differ in colour.

    All tiles have one colour scale, whose end is the 99th percentile of what is shown.

    Args:
        image: what the model saw.
        rows: the answers, the baseline first.
        title: headline.
        path: PNG file to write.
    """
    shown = np.concatenate([row.seen.ravel() for row in rows])
    most = max(float(np.percentile(shown, 99)) if shown.size else 0.0, 1e-6)
    width_px, height_px = _tile_size(image)
    step = (max(width_px, 56) + _GAP_PX, height_px + _CAPTION_PX + _GAP_PX)
    across = min(_ACROSS, max(6, *(len(row.words) + 1 for row in rows)))
    lines = [-(-(len(row.words) + 1) // across) for row in rows]
    height = sum(lines) * step[1] + len(rows) * _TITLE_PX
    canvas = np.ones((height, across * step[0], 3))
    inches, below, above = height / 100, 0.45, 0.2
    total = inches + below + above
    figure = Figure(figsize=(canvas.shape[1] / 100, total))
    axes = figure.add_axes((0, below / total, 1, inches / total))
    top = 0
    for index, row in enumerate(rows):
        changed = changed_words(row.words, rows[0].words)
        axes.text(0, top + _TITLE_PX - 12, row.title, fontsize=9, weight="bold", parse_math=False)
        plain = np.asarray(image.convert("RGB").resize((width_px, height_px)), dtype=float) / 255
        tiles = [plain, *(tile(image, weights, most) for weights in row.seen)]
        for position, (pixels, word) in enumerate(zip(tiles, ["the image", *row.words], strict=True)):
            left, upper = position % across * step[0], top + _TITLE_PX + position // across * step[1]
            canvas[upper : upper + height_px, left : left + width_px] = pixels
            differs = index > 0 and position > 0 and changed[position - 1]
            axes.text(
                left + width_px / 2,
                upper + height_px + 4,
                word if len(word) <= 15 else word[:14] + "…",
                fontsize=7.5 if len(word) <= 11 else 6.5,
                ha="center",
                va="top",
                style="italic" if position == 0 else "normal",
                weight="bold" if differs else "normal",
                color="#c1121f" if differs else "dimgrey" if position == 0 else "black",
                parse_math=False,
            )
        top += _TITLE_PX + lines[index] * step[1]
    axes.imshow(canvas, extent=(0, canvas.shape[1], height, 0), interpolation="none", aspect="auto")
    axes.axis("off")
    figure.text(0, 1, title, va="top", fontsize=10, parse_math=False)
    bar_axes = figure.add_axes((0, 0.25 / total, 0.3, 0.1 / total))
    bar = figure.colorbar(ScalarMappable(Normalize(0, most), _COLOURS), cax=bar_axes, orientation="horizontal")
    bar.ax.tick_params(labelsize=6.5)
    note = "share of a word's attention on one patch: mean of layers and heads, one scale for all tiles"
    bar_axes.text(1.03, 0.5, note, fontsize=6.5, va="center", transform=bar_axes.transAxes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks
        save_figure(figure, path)


def _tile_size(image: Image.Image) -> tuple[int, int]:
    scale = _TILE_PX / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))
