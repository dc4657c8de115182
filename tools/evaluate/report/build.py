"""The report of `regard evaluate`: one HTML file that opens from disk, with figures, answers and images in it.

The page asks no network for anything: a policy at its head forbids that, and lets nothing run but the script that is
written here. Answers and file names come from strangers, so the data lie in the file as JSON, without any `<`, and the
script puts them on the page as text only. Its parts are in `page`: markup, style, and a script in several files.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from PIL import Image, ImageOps

from ...run.page_policy import policy_hash
from ...run.strict_json import strict_json

__all__ = ["build_report", "data_uri"]

#: Files of the script, each after those that it builds upon.
_SCRIPTS = ("elements", "figures", "scores", "evidence", "samples", "head", "page")
_JPEG_QUALITY = 82


def build_report(data: Mapping[str, Any]) -> str:
    """The page.

    Args:
        data: JSON's types; numbers that are not finite count as `None`, which is shown as "-".

            - `title`, `settings` (name -> value), `versions` (name -> str);
            - `benchmarks`, a list of `name`, `scores` (what `regard.mllm.evaluation.score_tables.score` gives),
              `costs`, `samples`;
            - `costs`: `None`, or `device`, `samples`, `new_tokens`, and `arms`: arm -> `prompt_ms`, `token_ms`,
              `tokens_per_second`, `mb`, and `ratio` to the first arm: `prompt`, `token` and `tokens_per_second` are
              quartiles with the median between, `mb` is a number or `None`;
            - `samples`, some or all of those that were scored: `id`, `image` (key of `images` or `None`), `question`,
              `truth`, `part`, and `answers`: arm -> `text`, `parsed`, `correct` (`None` where not applicable),
              `invented` (names of objects), `images` (keys of `images`);
            - `images`: key -> data URI, see `data_uri`.

    Returns:
        HTML in ASCII.

    Raises:
        ValueError: no benchmark, two of one name, or an image that is not a data URI of one.

    Example:
        >>> build_report({"title": "nothing", "settings": {}, "versions": {}, "benchmarks": [], "images": {}})
        Traceback (most recent call last):
        ValueError: the report has no benchmark; give the scores of one at least
    """
    names = [benchmark["name"] for benchmark in data["benchmarks"]]
    if not names:
        raise ValueError("the report has no benchmark; give the scores of one at least")
    if len(set(names)) < len(names):
        raise ValueError(f"two benchmarks of the report have one name: {', '.join(names)}; give each its own")
    for key, uri in data["images"].items():
        if not uri.startswith("data:image/"):
            raise ValueError(
                f"the image {key!r} is {uri[:40]!r}; make a data URI of it with data_uri(image, longest_px)"
            )
    folder = files(__package__) / "page"
    style = (folder / "report.css").read_text(encoding="utf-8")
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    script = "".join(["(() => {\n'use strict';\n", *parts, "})();\n"])
    page = Template((folder / "report.html").read_text(encoding="utf-8"))
    return page.substitute(
        style=style,
        style_hash=policy_hash(style),
        script=script,
        script_hash=policy_hash(script),
        data=strict_json(data).replace("<", "\\u003c"),
    )


def data_uri(image: Image.Image, longest_px: int) -> str:
    """An image inside a page: the smaller one of JPEG and PNG, and PNG where something is transparent.

    Args:
        image: of 8 bits a channel; it is turned upright by its EXIF entry.
        longest_px: length of its longer side at most; smaller images stay as they are.

    Raises:
        ValueError: the length is below 1.

    Example:
        >>> data_uri(Image.new("RGB", (640, 480), "navy"), 64)[:22]
        'data:image/png;base64,'
    """
    if longest_px < 1:
        raise ValueError(f"the longer side is to have {longest_px} pixels; give 1 at least")
    transparent = image.has_transparency_data
    small = ImageOps.exif_transpose(image).convert("RGBA" if transparent else "RGB")
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    small.info = {}  # no colour profile, comment or location of the camera
    found = {"png": _encoded(small, "PNG", optimize=True)}
    if not transparent:
        found["jpeg"] = _encoded(small, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    kind = min(found, key=lambda name: len(found[name]))
    return f"data:image/{kind};base64,{base64.b64encode(found[kind]).decode()}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()
