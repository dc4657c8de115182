"""A trained head as a folder: weights, standardisation of the features, and names of the outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from safetensors.torch import save_file
from torch import Tensor, nn

from ..whole_files import whole_folder
from .checkpoints import read_head_weights
from .contract import BagOutput, Criterion
from .table import HEADS, build_head

__all__ = ["Task", "TrainedHead", "load_trained_head", "save_trained_head"]

Task = Literal["classification", "survival"]

#: Values of a bag that are standardised at a time, 64 MB in float32.
_BLOCK = 1 << 24


class TrainedHead(nn.Module):
    """A head of the table with standardised features and names of its outputs.

    Args:
        name: name of the head, as in `build_head`.
        dim_in: width of the features.
        classes: names of the outputs; for survival those of the time intervals.
        options: keyword arguments of the head, as in `build_head`.
        task: classification, or survival, whose logits are those of the hazards of the intervals.
        cuts: for survival, boundaries between the intervals, in the unit of the table's times.
        encoder: name of the encoder of the features, if known.
        standardised: whether features are standardised, (x - mean) / std. Both are buffers, 0 and 1 until they are set.

    Raises:
        ValueError: as for `build_head`; or the number of cuts does not fit that of the intervals.

    Example:
        >>> head = TrainedHead("abmil", 384, ["normal", "tumour"], {"width": 64})
        >>> head(torch.rand(50, 384)).logits.shape
        torch.Size([2])
    """

    def __init__(
        self,
        name: str,
        dim_in: int,
        classes: Sequence[str],
        options: Mapping[str, Any] | None = None,
        *,
        task: Task = "classification",
        cuts: Sequence[float] = (),
        encoder: str | None = None,
        standardised: bool = True,
    ) -> None:
        super().__init__()
        if task == "survival" and len(cuts) != len(classes) - 1:
            raise ValueError(f"{len(classes)} time intervals have {len(classes) - 1} cuts; {len(cuts)} are given")
        self.name, self.options, self.classes = name, dict(options or {}), list(classes)
        self.task, self.cuts, self.encoder, self.standardised = task, list(cuts), encoder, standardised
        self.dim_in, self.num_classes = dim_in, len(self.classes)
        self.head = build_head(name, dim_in, self.num_classes, **self.options)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(dim_in))
        self.register_buffer("std", torch.ones(dim_in))

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """The head's output for the standardised features; see `regard.heads.contract`."""
        if self.standardised and bag.shape[-1] == self.dim_in:  # the head refuses another width
            bag = self.standardise(bag)
        return self.head(bag, valid, labels=labels, criterion=criterion)

    def standardise(self, bag: Float[Tensor, "*batch instances dim"]) -> Float[Tensor, "*batch instances dim"]:
        """(bag - mean) / std, computed in float32, in the type of the bag."""
        mean, std = self.mean.float(), self.std.float()
        if bag.numel() <= _BLOCK:
            return ((bag.float() - mean) / std).to(bag.dtype)
        done = torch.empty_like(bag)
        rows = max(1, _BLOCK // bag.shape[-1])
        for source, target in zip(bag.flatten(0, -2).split(rows), done.flatten(0, -2).split(rows), strict=True):
            target.copy_((source.float() - mean) / std)
        return done

    def probabilities(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
        """Probability of each class; for survival, of surviving each interval."""
        if self.task == "survival":
            return F.logsigmoid(-logits.float()).cumsum(dim=-1).exp()
        return logits.float().softmax(dim=-1)


def save_trained_head(head: TrainedHead, folder: str | Path, **named: Any) -> None:
    """Write model.safetensors, features.safetensors and config.json to a folder, atomically.

    `load_head` reads model.safetensors too, if the head was not trained on standardised features.

    Args:
        head: the head to save.
        folder: the folder; an existing one is replaced.
        named: further entries of config.json.

    Example:
        >>> save_trained_head(TrainedHead("mean", 8, ["no", "yes"], {"width": 4}), "trained")
        >>> load_trained_head("trained").classes
        ['no', 'yes']
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in head.head.state_dict().items()}
    config = {
        "head": head.name,
        "options": head.options,
        "dim_in": head.dim_in,
        "classes": head.classes,
        "task": head.task,
        "cuts": head.cuts,
        "encoder": head.encoder,
        "standardised": head.standardised,
        **named,
    }
    with whole_folder(Path(folder)) as partial:
        save_file(weights, partial / "model.safetensors")
        if head.standardised:
            save_file({"mean": head.mean.cpu(), "std": head.std.cpu()}, partial / "features.safetensors")
        (partial / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def load_trained_head(folder: str | Path, *, trust: bool = False) -> TrainedHead:
    """Load a head that `save_trained_head` wrote, in evaluation mode.

    Args:
        folder: the folder with config.json and the weights.
        trust: whether a head of another package that config.json names may be imported, which runs its code.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the folder is damaged or not that of a trained head, or it names a head of another package.

    Example:
        >>> save_trained_head(TrainedHead("abmil", 64, ["a", "b"], {"width": 8}, encoder="uni"), "trained")
        >>> head = load_trained_head("trained")
        >>> head.encoder, head.head.dim_in
        ('uni', 64)
    """
    source = Path(folder)
    file = source / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{source} is not a trained head: it has no config.json; `regard train mil` writes such folders"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        named = {key: config[key] for key in ("classes", "options", "task", "cuts", "encoder", "standardised")}
        name, dim_in = str(config["head"]), int(config["dim_in"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not describe a trained head: {error}") from error
    if name not in HEADS and not trust:
        raise ValueError(
            f"{file} names the head {name!r}, which is not one of {', '.join(HEADS)}; importing it runs its code. "
            "If you trust it, give trust=True"
        )
    try:
        head = TrainedHead(name, dim_in, **named)
        head.head.load_state_dict(read_head_weights(source / "model.safetensors"))
        if head.standardised:
            features = read_head_weights(source / "features.safetensors")
            head.mean.copy_(features["mean"])
            head.std.copy_(features["std"])
    except (RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{source} does not fit its config.json: {reason}") from error
    return head.eval()
