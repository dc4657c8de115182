"""What a comparison of heads on bags consists of: worlds of bags with their folds, and a run for each head and seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from ....datasets.bags import Bags, Fold, make_folds, open_bags, read_folds
from ....heads import AEM, build_head
from ....heads.metrics import SCORES
from ....heads.training import check_survival
from ...settings import BagSettings, HeadSettings, TrainSettings

__all__ = ["Run", "World", "check", "label_of", "open_worlds", "plan", "try_heads"]

#: Settings of images only.
_IMAGES = (
    *("backbone", "images", "augmentation", "method", "method_options", "ema_decay", "channels_last", "compile"),
    *("grad_checkpointing", "loggers"),
)


@dataclass
class World:
    """Bags and their folds.

    Attributes:
        bags: all of them.
        folds: with places in `bags`.
        seeds: of the trainings on them.
        own: whether each seed has a world of its own, as rendered bags have.
    """

    bags: Bags
    folds: list[Fold]
    seeds: list[int]
    own: bool = False
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def statistics(self, fold: Fold) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the features of all training instances; a constant feature has deviation 1."""
        key = id(fold)
        if key not in self._known:
            self._known = {key: _mean_and_deviation(self.bags, fold.train)}
        return tuple(part.clone() for part in self._known[key])  # type: ignore[return-value]

    def times(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Times and events of some bags."""
        bags = [self.bags.bags[place] for place in places]
        return torch.tensor([float(bag.time or 0) for bag in bags]), torch.tensor([bool(bag.event) for bag in bags])


@dataclass(frozen=True)
class Run:
    """One head on one fold with one seed.

    Attributes:
        head: which.
        head_label: what it is called.
        world: its bags.
        number: of the fold, from 0.
        seed: of the training.
        folder: of its results.
    """

    head: HeadSettings
    head_label: str
    world: World
    number: int
    seed: int
    folder: Path

    @property
    def fold(self) -> Fold:
        """Its parts."""
        return self.world.folds[self.number]


def check(settings: TrainSettings) -> None:
    """Refuse settings that do not go together, before anything is read.

    Raises:
        ValueError: a setting is wrong; it is named.
    """
    chosen = settings.bags
    assert chosen is not None
    defaults = TrainSettings()
    for name in _IMAGES:
        if getattr(settings, name) != getattr(defaults, name):
            raise ValueError(f"--{name} is of image classifiers; leave it out with bags")
    if settings.optimizer.layer_decay is not None:
        raise ValueError("--optimizer.layer_decay is of image classifiers; leave it out with bags")
    labels = [label_of(head) for head in chosen.heads]
    if not labels:
        raise ValueError("--bags.heads is empty; give at least one, e.g. [{name: abmil}]")
    for label in labels:
        if not re.fullmatch(r"[\w.+=-]+", label) or label.startswith("."):
            raise ValueError(
                f"a head has the label {label!r}; give letters, digits and . _ + = - only: it names a folder"
            )
        if labels.count(label) > 1:
            raise ValueError(f"two heads are called {label!r}; give one of them another label")
    if chosen.reference is not None and chosen.reference not in labels:
        raise ValueError(f"--bags.reference is {chosen.reference!r}, but the heads are {', '.join(labels)}")
    if chosen.score is not None and chosen.score not in SCORES[chosen.task]:
        raise ValueError(f"--bags.score {chosen.score} is none of {chosen.task}; give {', '.join(SCORES[chosen.task])}")
    if chosen.task == "survival" and (chosen.class_weights != "none" or chosen.weighted_sampling):
        raise ValueError("survival has no classes: leave out --bags.class_weights and --bags.weighted_sampling")
    if not chosen.seeds or len(set(chosen.seeds)) < len(chosen.seeds) or min(chosen.seeds) < 0:
        raise ValueError(f"--bags.seeds is {chosen.seeds}; give different numbers from 0 up")
    if chosen.resamples < 1 or settings.epochs < 1:
        raise ValueError(
            f"--bags.resamples is {chosen.resamples} and --epochs {settings.epochs}; both must be at least 1"
        )
    for head, label in zip(chosen.heads, labels, strict=True):
        _check_order(head, label, chosen.heads, labels)


def label_of(head: HeadSettings) -> str:
    """What a head is called in tables and folders."""
    return head.label or head.name.replace(":", ".") + ("+aem" if head.aem else "")


def open_worlds(settings: TrainSettings) -> list[World]:
    """The bags with their folds: one world for all seeds, or of rendered bags one for each.

    Raises:
        ValueError: the data, table or folds are wrong, or nothing holds out what early stopping needs.
        OSError: a file cannot be read.
    """
    chosen = settings.bags
    assert chosen is not None
    bags = _open(settings, chosen.seeds[0])
    if bags.fold is not None:
        others = [_open(settings, seed) for seed in chosen.seeds[1:]]
        worlds = [
            World(own_bags, [own_bags.fold], [seed], own=True)
            for seed, own_bags in zip(chosen.seeds, [bags, *others], strict=True)
            if own_bags.fold is not None
        ]
    else:
        if isinstance(chosen.folds, int):
            own = {"val_share": chosen.val_share, "repeats": chosen.repeats}
            folds = make_folds(bags, folds=chosen.folds, seed=settings.seed, **own)  # type: ignore[arg-type]
        else:
            folds = read_folds(chosen.folds, bags)
        worlds = [World(bags, folds, chosen.seeds)]
    if settings.early_stop is not None and not all(fold.val for world in worlds for fold in world.folds):
        raise ValueError("--early_stop watches validation bags, and there are none; give a --bags.val_share above 0")
    return worlds


def plan(settings: TrainSettings, worlds: list[World]) -> list[Run]:
    """All runs, in the order in which they are done: heads side by side, fold by fold."""
    assert settings.bags is not None
    return [
        Run(
            head, label_of(head), world, number, seed,
            Path(settings.out, "runs", label_of(head), f"fold_{number}_seed_{seed}"),
        )
        for world in worlds
        for number in range(len(world.folds))
        for seed in world.seeds
        for head in settings.bags.heads
    ]  # fmt: skip


def try_heads(chosen: BagSettings, bags: Bags) -> None:
    """Build each head and show it a blank bag, so that what does not fit is named before the first epoch.

    Raises:
        ValueError: a head or option is unknown, AEM has no attention to work on, or survival does not suit a head.
    """
    classes = chosen.intervals if chosen.task == "survival" else len(bags.classes)
    for head in chosen.heads:
        options = dict(head.options)
        if chosen.chunk is not None:
            options["chunk"] = chosen.chunk
        try:
            built = build_head(head.name, bags.width, classes, **options).eval()
            with torch.no_grad():
                output = built(torch.zeros(3, bags.width))
        except (TypeError, RuntimeError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the head {label_of(head)} does not take options {options}: {reason}") from error
        except ValueError as error:
            raise ValueError(f"the head {label_of(head)}: {error}") from error
        if head.aem is not None:
            if output.attention is None:
                raise ValueError(
                    f"the head {label_of(head)} has no attention that AEM could spread; take aem out, or another head, "
                    "e.g. abmil, clam_sb, dsmil or acmil"
                )
            AEM(**vars(head.aem))
        if chosen.task == "survival":
            check_survival(head.name, built)


def _check_order(head: HeadSettings, label: str, heads: list[HeadSettings], labels: list[str]) -> None:
    """IBMIL needs a first stage; it must be there, before it and of its width."""
    if head.name != "ibmil":
        if head.after is not None:
            raise ValueError(f"the head {label} has after: {head.after}, which is of ibmil alone; take it out")
        return
    if head.after not in labels[: labels.index(label)] or heads[labels.index(head.after)].name != "abmil":
        raise ValueError(
            f"the head {label} needs confounders of a first stage: give it after: LABEL, an abmil that stands before "
            f"it in the list, not {head.after!r}"
        )
    widths = [one.options.get("width", 512) for one in (head, heads[labels.index(head.after)])]
    if widths[0] != widths[1]:
        raise ValueError(f"the head {label} is {widths[0]} wide, but {head.after} {widths[1]}; give both one width")


def _open(settings: TrainSettings, seed: int) -> Bags:
    chosen = settings.bags
    assert chosen is not None
    if settings.data == next(one.default for one in fields(TrainSettings) if one.name == "data"):
        raise ValueError("--data is missing: a set of bags such as ucsb, or a folder of features")
    bags = open_bags(
        settings.data, table=chosen.table, label=chosen.label, classes=chosen.classes, task=chosen.task, seed=seed
    )
    if chosen.task == "survival":
        bare = [bag.id for bag in bags.bags if bag.time is None or bag.event is None]
    else:
        bare = [bag.id for bag in bags.bags if bag.label is None]
    if bare:
        what = "time and event" if chosen.task == "survival" else "label"
        raise ValueError(
            f"{len(bare)} of {len(bags)} bags of {bags.name} have no {what}, the first is {bare[0]}; "
            "give --bags.table, a CSV with the columns slide_id, case_id and "
            + ("time, event" if chosen.task == "survival" else chosen.label)
        )
    return bags


def _mean_and_deviation(bags: Bags, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Over all instances of some bags, in one pass; a bag's own first, so that nothing is lost to rounding."""
    count = 0
    mean = spread = torch.zeros(bags.width, dtype=torch.float64)
    for place in places:
        for block in bags.features(place).split(8192):
            own = block.double()
            own_mean = own.mean(dim=0)
            total, step = count + len(own), own_mean - mean
            spread = spread + (own - own_mean).square().sum(dim=0) + step.square() * (count * len(own) / total)
            mean, count = mean + step * (len(own) / total), total
    deviation = (spread / count).sqrt()
    constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    return mean.float(), deviation.masked_fill(constant, 1.0).float()
