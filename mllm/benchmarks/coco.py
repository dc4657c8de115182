"""COCO-style annotation files: image files, objects and captions.

Format: Lin et al. 2014, arXiv:1405.0312. Instances have `images` (id, file_name), `categories` (id, name) and
`annotations` (image_id, category_id); captions have `annotations` (image_id, caption).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .reading import field_of, read_json

__all__ = ["CocoImage", "read_captions", "read_instances"]


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """One image of an instances file.

    Attributes:
        id: as in the file.
        file: its name.
        objects: names of the classes that are annotated in it, each once, in the order of the annotations.
    """

    id: int
    file: str
    objects: tuple[str, ...]


def read_instances(path: Path) -> list[CocoImage]:
    """The images of an instances file, in its order; those without any annotation too.

    Raises:
        ValueError: the file is missing or damaged, an id of an image is double, or an annotation names an image or a
            class that is not in the file.
    """
    data = _whole(path, "instances")
    names: dict[int, str] = {}
    for number, category in enumerate(field_of(data, "categories", list, str(path)), 1):
        where = f"{path}, category {number}"
        names[field_of(category, "id", int, where)] = field_of(category, "name", str, where)
    files: dict[int, str] = {}
    for number, image in enumerate(field_of(data, "images", list, str(path)), 1):
        where = f"{path}, image {number}"
        key = field_of(image, "id", int, where)
        if key in files:
            raise ValueError(f"{where}: the id {key} is there twice; every image needs its own")
        files[key] = field_of(image, "file_name", str, where)
    objects: dict[int, dict[str, None]] = {key: {} for key in files}
    for number, annotation in enumerate(field_of(data, "annotations", list, str(path)), 1):
        where = f"{path}, annotation {number}"
        image_id, category_id = (field_of(annotation, key, int, where) for key in ("image_id", "category_id"))
        if image_id not in objects or category_id not in names:
            missing = f"the image {image_id}" if image_id not in objects else f"the class {category_id}"
            raise ValueError(f"{where} is about {missing}, which the file does not have")
        objects[image_id][names[category_id]] = None
    return [CocoImage(id=key, file=file, objects=tuple(objects[key])) for key, file in files.items()]


def read_captions(path: Path, images: Collection[int]) -> dict[int, list[str]]:
    """The captions of some images; images without any are skipped.

    Args:
        path: of a captions file.
        images: ids of images.

    Raises:
        ValueError: the file is missing or damaged.
    """
    found: dict[int, list[str]] = {}
    for number, row in enumerate(field_of(_whole(path, "captions"), "annotations", list, str(path)), 1):
        where = f"{path}, annotation {number}"
        key, caption = field_of(row, "image_id", int, where), field_of(row, "caption", str, where)
        if key in images:
            found.setdefault(key, []).append(caption)
    return found


def _whole(path: Path, kind: str) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a COCO {kind} file: it holds a {type(data).__name__}, not an object")
    for key in ("annotations", "images", "categories"):
        rows = data.get(key)
        odd = [row for row in rows if not isinstance(row, dict)] if isinstance(rows, list) else []
        if odd:
            raise ValueError(f"{path} is not a COCO {kind} file: {key} has {str(odd[0])[:40]!r}")
    return data
