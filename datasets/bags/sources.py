"""Open bags by the name of a bundled set, or from a folder of features."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path

from ...class_names import choices, nearest
from .bag import Bag, Bags, Instances
from .feature_folder import find_features
from .slide_table import SlideRow, read_slide_table, sort_labels

__all__ = ["BAG_SETS", "open_bags"]

#: Bundled sets -> module and function of this package.
BAG_SETS: dict[str, str] = {
    "ucsb": "embedded_sets:open_embedded",
    "musk1": "embedded_sets:open_embedded",
    "musk2": "embedded_sets:open_embedded",
    "elephant": "embedded_sets:open_embedded",
    "mil_shortcut": "scenarios:render_bags",
    "mil_noise": "scenarios:render_bags",
    "mil_rare": "scenarios:render_bags",
}
_log = logging.getLogger(__name__)


def open_bags(
    source: str | Path,
    *,
    table: str | Path | None = None,
    label: str = "label",
    classes: list[str] | None = None,
    task: str = "classification",
    seed: int = 0,
    strict: bool = False,
) -> Bags:
    """Open bags with their labels.

    The size and width of every bag are read at once, so that errors in a slide are found before training.

    Args:
        source: a set of `BAG_SETS`, or a folder or file of features (see `find_features` for the layouts); `./ucsb`
            for a folder that has the name of a set.
        table: CSV file of the slides, see `slide_table.py`. Without it the labels are those in the
            feature files (ACMIL's H5), or there are none, for prediction; slides without instances are then skipped.
        label: name of the column of labels.
        classes: their names in the order of their numbers. Default: all labels, sorted; by number if all are numbers.
        task: `classification`, which needs labels, or `survival`, which needs the columns time and event.
        seed: of the rendered sets, 0 or more.
        strict: whether features that the table does not list are an error. Default: they are skipped with a
            warning.

    Raises:
        ValueError: the name is unknown, the folder or table is not as expected, a slide of the table has no features
            or instances, features differ in width or cannot be read, a label is not in `classes`, or there is only
            one class; with slide, file and line where known.
        ImportError: the features are zarr stores and zarr is not installed.

    Example:
        >>> open_bags("ucsb")
        Bags(58 bags, 2002 instances, 708 wide, 2 classes, from ucsb)
    """
    if task not in ("classification", "survival"):
        raise ValueError(f"there is no task {task!r}; known: classification, survival")
    name = os.fspath(source)
    if name in BAG_SETS:
        if table is not None or classes is not None or task == "survival":
            raise ValueError(f"{name} has its own labels; omit table, classes and task, or give ./{name}")
        module, _, function = f"{__package__}.{BAG_SETS[name]}".partition(":")
        return getattr(import_module(module), function)(name, seed)
    if not Path(name).exists():
        raise ValueError(f"{name!r} is neither a set nor a folder; {choices(name, BAG_SETS)}")
    found, labels = find_features(name)
    if table is not None:
        rows = read_slide_table(table, label=label, task=task)
        _compare(rows, found, f"{table}", name, strict)
    elif task == "survival":
        raise ValueError(f"{name} has no survival times; give a table with the columns slide_id, time and event")
    else:
        rows = _without_table(found, labels)
        if len(labels) not in (0, len(found)):
            bare = next(slide for slide in found if slide not in labels)
            raise ValueError(f"slide {bare} in {name} has no label, but others have; give a table")
    known = {row.label for row in rows if row.label is not None}
    origin = f"{table or name}"
    names = _class_names(known, classes, origin) if known else list(classes or [])
    number = {text: index for index, text in enumerate(names)}
    for row in rows:
        if row.label is not None and row.label not in number:
            line = f" line {row.line}" if row.line else ""
            raise ValueError(
                f"{origin}{line}: slide {row.slide} has the label {row.label!r}, which is not one of {', '.join(names)}"
            )
    bags = [
        Bag(row.slide, row.patient, None if row.label is None else number[row.label], row.time, row.event)
        for row in rows
    ]
    return Bags(bags, [found[row.slide] for row in rows], names, name=name)


def _compare(rows: list[SlideRow], found: dict[str, Instances], table: str, source: str, strict: bool) -> None:
    bare = [row for row in rows if row.slide not in found]
    if bare:
        raise ValueError(
            f"{_listed([row.slide for row in bare])} of {table} without features in {source}; "
            f"{nearest(bare[0].slide, found)}Extract them or remove them from the table "
            f"(the first is in line {bare[0].line})"
        )
    listed = {row.slide for row in rows}
    unlisted = [slide for slide in found if slide not in listed]
    if unlisted:
        problem = f"{_listed(unlisted)} with features in {source}, but not in {table}"
        if strict:
            raise ValueError(f"{problem}; add them to the table or remove their files")
        _log.warning("%s: skipped", problem)


def _without_table(found: dict[str, Instances], labels: dict[str, str]) -> list[SlideRow]:
    empty = [slide for slide, instances in found.items() if not _size(slide, instances)]
    if empty:
        _log.warning("%s without instances: skipped", _listed(empty))
    return [SlideRow(0, slide, slide, labels.get(slide)) for slide in found if slide not in empty]


def _size(slide: str, instances: Instances) -> int:
    try:
        return instances.shape()[0]
    except ValueError as error:
        raise ValueError(f"slide {slide}: {error}") from error


def _class_names(known: set[str], classes: list[str] | None, origin: str) -> list[str]:
    if classes is None:
        if len(known) < 2:
            raise ValueError(f"{origin} has one label only, {next(iter(known))!r}; name all with classes=")
        return sort_labels(known)
    names = [str(name) for name in classes]
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"classes are {', '.join(names) or 'none'}; name two or more, each once")
    return names


def _listed(slides: list[str]) -> str:
    more = f" and {len(slides) - 5} more" if len(slides) > 5 else ""
    return f"{len(slides)} slide{'s' if len(slides) > 1 else ''} ({', '.join(slides[:5])}{more})"
