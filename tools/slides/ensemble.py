"""Ensembles of trained heads, such as those of the folds of one training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...heads.trained_head import TrainedHead, load_trained_head
from ...whole_files import is_partial
from .heatmaps.score_map import ScoreMap
from .stage_cache import file_digest

__all__ = ["Ensemble", "SlidePrediction", "find_heads"]

_BAGS = 1024


class SlidePrediction(NamedTuple):
    """The prediction of an ensemble for a slide.

    Attributes:
        probabilities: of the classes (for survival: of being past each interval), the mean over the heads.
        spread: standard deviation over the heads; zero for one head.
        attention: weight of every patch, which sums to one, the mean over the heads; None if they have no attention.
        per_patch: probabilities of each patch as a bag of its own, the mean over the heads.
    """

    probabilities: Float[Tensor, " classes"]
    spread: Float[Tensor, " classes"]
    attention: Float[Tensor, " patches"] | None
    per_patch: Float[Tensor, "patches classes"]


class Ensemble:
    """Heads of one kind that were trained on different parts of the same data.

    Args:
        folders: of the heads, as `regard.heads.save_trained_head` writes them.
        device: where they compute.
        trust: import heads from the packages that their folders name.

    Raises:
        ValueError: they do not belong together, or a folder is not a trained head.
    """

    def __init__(self, folders: Sequence[Path], device: torch.device, *, trust: bool = False) -> None:
        self.heads: list[TrainedHead] = [load_trained_head(folder, trust=trust).to(device) for folder in folders]
        first = self.heads[0]
        for folder, head in zip(folders, self.heads, strict=True):
            for name in ("classes", "dim_in", "task", "encoder"):
                if getattr(head, name) != getattr(first, name):
                    raise ValueError(
                        f"the heads in {folders[0]} and {folder} cannot be combined: their {name} are "
                        f"{getattr(first, name)} and {getattr(head, name)}; give heads of one training"
                    )
        self.classes, self.task, self.encoder, self.dim_in = first.classes, first.task, first.encoder, first.dim_in
        self.device = device
        parts = [file_digest(file) for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
        self.fingerprint = hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def predict(self, features: Float[Tensor, "patches dim"]) -> SlidePrediction:
        """Predict a slide from the features of its patches.

        Raises:
            ValueError: there are no patches, or they have another width.
        """
        bag = features.float().to(self.device)
        each, per_patch, maps = [], [], []
        for head in self.heads:
            output = head(bag)
            each.append(head.probabilities(output.logits))
            if output.attention is not None:
                maps.append(output.mean_attention().float())
            patches = [head(part[:, None]).logits for part in bag.split(_BAGS)]
            per_patch.append(head.probabilities(torch.cat(patches)))
        votes = torch.stack(each)
        return SlidePrediction(
            probabilities=votes.mean(dim=0).cpu(),
            spread=(votes.std(dim=0) if len(votes) > 1 else torch.zeros_like(votes[0])).cpu(),
            attention=torch.stack(maps).mean(dim=0).cpu() if maps else None,
            per_patch=torch.stack(per_patch).mean(dim=0).cpu(),
        )

    def label(self, vote: SlidePrediction) -> str | None:
        """The most probable class; for survival the interval of the median survival time."""
        if self.task == "survival":
            past = (vote.probabilities < 0.5).nonzero().flatten()
            return self.classes[int(past[0])] if len(past) else self.classes[-1]
        return self.classes[int(vote.probabilities.argmax())]

    def score_maps(self, vote: SlidePrediction) -> list[ScoreMap]:
        """Attention, if the heads have any, and the probabilities of each patch, the predicted class first."""
        found = [] if vote.attention is None else [ScoreMap("attention", vote.attention.double().numpy())]
        per_patch = dict(zip(self.classes, vote.per_patch.T, strict=True))
        for name in sorted(per_patch, key=lambda name: name != self.label(vote)):
            found.append(ScoreMap(f"prob_{name}", per_patch[name].double().numpy(), "probability"))
        return found


def find_heads(names: Sequence[str]) -> list[Path]:
    """Find the folders of trained heads: those given, or all folds of a training.

    Args:
        names: "embedded", the folder of a head, or the output folder of `regard train mil`.

    Raises:
        ValueError: there is no head, or several kinds of heads.
    """
    found: list[Path] = []
    for name in names:
        folder = Path(name)
        if name == "embedded":
            folder = Path(str(files("regard.heads") / "embedded"))
        if not folder.is_dir():
            raise ValueError(
                f"--head {name} does not exist; give embedded, a trained head, or a --out of regard train mil"
            )
        if (folder / "config.json").is_file():
            found.append(folder)
            continue
        heads = sorted(file.parent for file in folder.glob("**/config.json") if not is_partial(file))
        if not heads:
            raise ValueError(f"no trained head is in --head {name}; give the --out of a finished regard train mil")
        folds = [head.parent if head.name == "model" else head for head in heads]
        kinds = sorted({fold.parent for fold in folds})
        if len(kinds) > 1:
            raise ValueError(
                f"--head {name} holds heads of {len(kinds)} kinds; give one of {', '.join(str(kind) for kind in kinds)}"
            )
        found += heads
    return found
