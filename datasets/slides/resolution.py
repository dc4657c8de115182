"""Microns per pixel and magnification from the metadata of slides and images.

Sources: Aperio's ImageDescription and the tags of TIFF as OpenSlide reads them (openslide.org/formats); OME-XML
2016-06, attributes PhysicalSizeX and NominalMagnification.
"""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

__all__ = ["aperio_values", "downsample", "from_resolution", "microscopic", "ome_values", "positive"]

_UNITS_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}

#: Microns per unit of TIFF's tag ResolutionUnit: inch, centimetre.
_TIFF_UNITS_UM = {2: 25_400.0, 3: 10_000.0}

#: Longest OME-XML that is parsed, in characters.
_MAX_XML = 20_000_000


def microscopic(mpp: float | None) -> float | None:
    """The value, if it is plausible for a slide: 0.01 to 50 microns per pixel.

    Programs write the resolution of screens or printers into images: 72 dots per inch are 353 microns.

    Example:
        >>> microscopic(0.25), microscopic(25400 / 72), microscopic(None)
        (0.25, None, None)
    """
    return mpp if mpp is not None and math.isfinite(mpp) and 0.01 <= mpp <= 50 else None


def downsample(full: tuple[int, int], level: tuple[int, int]) -> float:
    """Downsample factor of a level: pixels of full resolution that one of its pixels spans.

    Where a level is reduced by an integer, its last partial pixel is dropped or padded, so that the ratio of the sizes
    is slightly off; OpenSlide uses that ratio, this function the integer.

    Args:
        full: width and height at full resolution.
        level: width and height of the level.

    Example:
        >>> downsample((46920, 33014), (11730, 8253)), downsample((1000, 1000), (300, 300))
        (4.0, 3.3333333333333335)
    """
    ratio = (full[0] / level[0] + full[1] / level[1]) / 2
    whole = round(ratio)
    near = all(abs(own * whole - side) < whole for own, side in zip(level, full, strict=True))
    return float(whole) if near else ratio


def from_resolution(x: float, y: float, unit: int) -> float | None:
    """Microns per pixel from the resolution tags of a TIFF.

    Args:
        x: pixels per unit.
        y: pixels per unit.
        unit: 2 for inch, 3 for centimetre; other units give None.
    """
    if unit not in _TIFF_UNITS_UM or min(x, y) <= 0:
        return None
    return microscopic((_TIFF_UNITS_UM[unit] / x + _TIFF_UNITS_UM[unit] / y) / 2)


def aperio_values(description: str) -> tuple[float | None, float | None]:
    """Microns per pixel and magnification from Aperio's ImageDescription.

    Example:
        >>> aperio_values("Aperio Image Library v11|AppMag = 20|MPP = 0.4990|Left = 25.69")
        (0.499, 20.0)
    """
    fields = dict(part.split("=", 1) for part in description.split("|") if "=" in part)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    return microscopic(_number(fields.get("MPP"))), positive(fields.get("AppMag"))


def ome_values(xml: str) -> tuple[float | None, float | None]:
    """Microns per pixel and magnification of the first image of OME-XML; None where they are missing."""
    if len(xml) > _MAX_XML or re.search(r"<!(DOCTYPE|ENTITY)", xml):  # entities can grow without end
        return None, None
    try:
        root = ElementTree.fromstring(xml.encode())
    except ElementTree.ParseError:
        return None, None
    image = root.find("{*}Image")
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return None, None
    sizes = []
    for axis in "XY":
        size, unit = _number(pixels.get(f"PhysicalSize{axis}")), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is None or unit not in _UNITS_UM:
            break
        sizes.append(size * _UNITS_UM[unit])
    settings = image.find("{*}ObjectiveSettings")
    wanted = None if settings is None else settings.get("ID")
    objectives = {each.get("ID"): each.get("NominalMagnification") for each in root.iterfind(".//{*}Objective")}
    power = objectives.get(wanted) if wanted else next(iter(objectives.values()), None)
    return microscopic(sum(sizes) / 2) if len(sizes) == 2 else None, positive(power)


def positive(text: str | None) -> float | None:
    """The number in a text, if it is above zero."""
    value = _number(text)
    return value if value is not None and value > 0 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
