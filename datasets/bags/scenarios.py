"""Rendered bags whose tumour instances are known: three ways in which attention can go wrong.

- `mil_shortcut`: nearly all positive training bags have one salient pattern besides the subtle ones, and most positive
  test bags lack it; a head that uses nothing else fails.
- `mil_noise`: training and test alike, a tenth of the training labels wrong.
- `mil_rare`: tumours of one pattern in 2-6 % of the instances.

A data set is determined by its seed. It has four kinds of background and five directions in which tumour instances
depart from it, one salient and four subtle; in a bag that has the salient one, half of the tumour instances depart that
way. Each bag has 200 instances of 16 features with unit noise and a shift of its own. There are 60 bags to train on and
100 to test, half of them positive; `Bags.fold` lists them. Results differ a lot between seeds; compare several.

They show mechanisms; they are not evidence about slides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bag import Bag, Bags, Fold, InMemoryInstances

__all__ = ["SCENARIOS", "Scenario", "render_bags"]

WIDTH = 16
INSTANCES = 200
TRAIN_BAGS, TEST_BAGS = 60, 100
_KINDS, _KIND_SCALE, _SHIFT_SCALE = 4, 0.5, 0.2
_SALIENT_SHARE = 0.5  # of the tumour instances of a bag that has the salient pattern
_AMPLITUDES = (6.0, 3.5, 3.5, 3.5, 3.5)  # of the patterns; the first is the salient one


@dataclass(frozen=True)
class Scenario:
    """How the bags of a scenario are drawn.

    Attributes:
        number: part of the seed, so that scenarios differ.
        salient_rate: share of the positive bags, in training and in test, that have the salient pattern.
        subtle_patterns: how many there are, 1-4.
        tumour_share: minimum and maximum share of tumour instances in a positive bag.
        wrong_labels: share of the training labels that are flipped.
    """

    number: int
    salient_rate: tuple[float, float]
    subtle_patterns: int
    tumour_share: tuple[float, float]
    wrong_labels: float = 0.0


#: Name -> how it is drawn.
SCENARIOS: dict[str, Scenario] = {
    "mil_shortcut": Scenario(0, (0.95, 0.10), 4, (0.10, 0.30)),
    "mil_noise": Scenario(1, (0.50, 0.50), 4, (0.10, 0.30), wrong_labels=0.10),
    "mil_rare": Scenario(2, (0.0, 0.0), 1, (0.02, 0.06)),
}


def render_bags(name: str, seed: int = 0) -> Bags:
    """The bags of a scenario: the first 60 are for training, the other 100 for testing.

    Args:
        name: one of `SCENARIOS`.
        seed: of the data set, 0 or more.

    Raises:
        ValueError: no such scenario, or a negative seed.

    Example:
        >>> bags = render_bags("mil_rare", seed=3)
        >>> bags, len(bags.fold.test)
        (Bags(160 bags, 32000 instances, 16 wide, 2 classes, from mil_rare), 100)
        >>> positive = next(index for index, bag in enumerate(bags.bags) if bag.label)
        >>> 4 <= int(bags.instance_labels(positive).sum()) <= 12
        True
    """
    if name not in SCENARIOS:
        raise ValueError(f"there is no scenario {name!r}; known: {', '.join(SCENARIOS)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}, it cannot be negative")
    scenario = SCENARIOS[name]
    rng = np.random.default_rng([seed, scenario.number])
    kinds = _KIND_SCALE * rng.standard_normal((_KINDS, WIDTH))
    directions = rng.standard_normal((len(_AMPLITUDES), WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    patterns = np.array(_AMPLITUDES)[:, None] * directions
    bags, instances, truths = [], [], []
    for part, (count, salient_rate) in enumerate(zip((TRAIN_BAGS, TEST_BAGS), scenario.salient_rate, strict=True)):
        positive = rng.permutation(count) < count // 2
        salient = rng.permutation(count // 2) < round(salient_rate * (count // 2))
        turned = rng.permutation(count) < round(scenario.wrong_labels * count * (part == 0))
        remaining = iter(salient.tolist())
        for index in range(count):
            values = kinds[rng.integers(_KINDS, size=INSTANCES)] + _SHIFT_SCALE * rng.standard_normal(WIDTH)
            values += rng.standard_normal((INSTANCES, WIDTH))
            truth = np.zeros(INSTANCES, bool)
            if positive[index]:
                tumours = max(1, round(rng.uniform(*scenario.tumour_share) * INSTANCES))
                chosen = rng.permutation(INSTANCES)[:tumours]
                pattern = rng.integers(1, scenario.subtle_patterns, size=tumours, endpoint=True)
                if next(remaining):
                    pattern[rng.random(tumours) < _SALIENT_SHARE] = 0
                values[chosen] += patterns[pattern]
                truth[chosen] = True
            split = ("train", "test")[part]
            bag = f"{split}_{index + 1}"
            bags.append(Bag(bag, bag, int(positive[index] != turned[index])))
            instances.append(InMemoryInstances(values.astype(np.float32), f"{name} of seed {seed}"))
            truths.append(truth)
    fold = Fold(list(range(TRAIN_BAGS)), [], list(range(TRAIN_BAGS, TRAIN_BAGS + TEST_BAGS)))
    return Bags(bags, instances, ["normal", "tumour"], name=name, instance_labels=truths, fold=fold)
