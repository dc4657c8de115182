"""A small encoder that learns from unlabelled patches: two views of a patch shall be alike, views of others not.

Source: SimCLR, Chen et al. 2020, arXiv:2002.05709, equation 1 (NT-Xent). Differs in its views: tissue has no right way
up, and the amount of stain means nothing, so views are turned in all ways and their optical densities are scaled.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

__all__ = ["contrast", "train_encoder", "views"]

#: A ResNet-18 with one block a stage and a quarter of the channels.
ARCHITECTURE: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (24, 48, 96, 160), "num_classes": 0}
_SIDE = 80


def train_encoder(
    patches: UInt8[Tensor, "patches side side 3"], *, steps: int, batch: int = 128, seed: int = 0
) -> nn.Module:
    """Train the encoder from nothing.

    Args:
        patches: all that there are.
        steps: how many.
        batch: patches in a step.
        seed: of the weights, the order and the views.

    Returns:
        A model of timm.
    """
    torch.manual_seed(seed)
    model = timm.create_model("resnet18", **ARCHITECTURE)
    width = ARCHITECTURE["channels"][-1]
    projection = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 64))
    weights = [*model.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-3)
    begun = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = patches[torch.randint(len(patches), (batch,))].permute(0, 3, 1, 2).float() / 255
        loss = contrast(projection(model(torch.cat([views(chosen), views(chosen)]))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            sys.stderr.write(f"step {step} of {steps}: loss {loss.item():.3f}  ({time.monotonic() - begun:.0f} s)\n")
    return model.eval()


def views(patches: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 small small"]:
    """One random view of each patch: turned, mirrored, scaled, cut, stained and focused otherwise.

    Args:
        patches: values 0-1.

    Returns:
        Views of 80 pixels, normalised to a mean and deviation of about 0 and 1.
    """
    count, side = len(patches), patches.shape[-1]
    angle = torch.rand(count) * 2 * math.pi
    scale = _SIDE / side * (0.8 + 0.45 * torch.rand(count))
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    shift = (torch.rand(count, 2) * 2 - 1) * 0.2
    rows = (torch.stack([cosine * mirror, -sine, shift[:, 0]], 1), torch.stack([sine * mirror, cosine, shift[:, 1]], 1))
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, _SIDE, _SIDE], align_corners=False)
    cut = F.grid_sample(patches, grid, padding_mode="reflection", align_corners=False)
    density = -torch.log(cut.clamp(min=1 / 256)) * (0.7 + 0.6 * torch.rand(count, 3, 1, 1))
    density = density + 0.1 * torch.rand(count, 3, 1, 1)
    blurred = F.avg_pool2d(density, 3, stride=1, padding=1, count_include_pad=False)
    focus = torch.rand(count, 1, 1, 1)
    pixels = torch.exp(-(focus * density + (1 - focus) * blurred))
    return ((pixels - 0.6) / 0.25).contiguous(memory_format=torch.channels_last)


def contrast(vectors: Float[Tensor, "two_batches width"], temperature: float = 0.2) -> Float[Tensor, ""]:
    """NT-Xent: which of all others is the other view of the same patch.

    Args:
        vectors: those of all first views, then those of all second views.
        temperature: of the softmax.
    """
    likeness = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T / temperature
    likeness.fill_diagonal_(-torch.inf)
    return F.cross_entropy(likeness, torch.arange(len(vectors)).roll(len(vectors) // 2))
