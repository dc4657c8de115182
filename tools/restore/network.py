"""Load the network that restores, and measure the memory of its tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...vision import create_model
from ...vision.checkpoints import create_from_weights, find_file, identify, looks_like, read_weights
from ...vision.downloads import is_url
from ...vision.restorers import find_restorer, load_restorer
from ...vision.tiling import tile_cost
from ..benchmark.profiler import peak_bytes
from ..run.devices import choose_device
from ..settings import RestoreSettings
from ..settings.types import parse_bytes
from .tiled_image import Restorer

__all__ = ["build_restorer", "find_network"]


def build_restorer(settings: RestoreSettings) -> Restorer:
    """Load the network of `settings`, and measure the memory of its tiles.

    Raises:
        ValueError: a setting does not fit the network.
        OSError: the weights cannot be downloaded.
    """
    device = choose_device(settings.device)
    network: Any = find_network(settings.model, settings.scale)
    network = network.to(device, getattr(torch, settings.dtype)).eval().requires_grad_(False)
    window = network.window_size
    overlap = 4 * window if settings.overlap is None else -(-settings.overlap // window) * window
    tile = None if settings.tile == "auto" else max(window, settings.tile // window * window)
    if tile is not None and 2 * overlap > tile:
        raise ValueError(
            f"--tile {settings.tile} is less than twice the overlap of {overlap} px; give --tile {2 * overlap}, or a "
            f"smaller --overlap (the windows of this model are {window} px)"
        )
    cost = tile_cost(network, lambda call: peak_bytes(call, device.type))
    return Restorer(network, settings.model, parse_bytes(settings.memory), cost, tile, overlap, settings.quality)


def find_network(source: str, scale: int | None = None) -> nn.Module:
    """Load a restoration network.

    Args:
        source: as `RestoreSettings.model`.
        scale: required scale; None accepts any.

    Raises:
        ValueError: there is no such network, it does not restore images, or it has another scale.
    """
    name = f"hat_photo_x{scale or 2}" if source == "embedded" else source
    if find_restorer(name):
        network = load_restorer(name)
    elif is_url(name) or Path(name).is_file():
        weights = read_weights(find_file(name))
        found = identify(weights)
        if found is None or not found[0].startswith("hat_"):
            what = looks_like(weights) or "its names are unknown"
            raise ValueError(f"{name} does not hold a restoration network: {what}")
        network = create_from_weights(found[0], weights, name, **found[1])
    elif source == "embedded":
        raise ValueError(f"no embedded model enlarges {scale} times; name another one with --model")
    else:
        network = create_model(name, pretrained=True)
    if not all(hasattr(network, attribute) for attribute in ("scale", "window_size", "in_chans")):
        raise ValueError(f"{name} does not restore images; 'regard list --kind models' gives a PSNR for those that do")
    if scale not in (None, network.scale):
        raise ValueError(f"{name} enlarges {network.scale} times, not {scale}; omit --scale, or name another model")
    return network
