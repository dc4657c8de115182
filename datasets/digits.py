"""The 1,797 handwritten digits of scikit-learn: 8 x 8 grey pixels, on every computer without a download.

Source: Alpaydin and Kaynak 1998, UCI Machine Learning Repository, "Optical Recognition of Handwritten
Digits"; scikit-learn ships the test part.
"""

from __future__ import annotations

import numpy as np

from .labelled_images import LabelledImages
from .splits import stratified_split

__all__ = ["open_digits"]

_VAL, _TEST = 180, 360
_SEED = 0  # never the user's: numbers of different runs are about the same images


def open_digits() -> dict[str, LabelledImages]:
    """Open the digits: 1,257 to train, 180 to validate, 360 to test, the ten classes in proportion.

    The parts are the same for everybody. The 17 levels of grey are spread over 0-255.

    Example:
        >>> {split: len(images) for split, images in open_digits().items()}
        {'train': 1257, 'val': 180, 'test': 360}
    """
    from sklearn.datasets import load_digits

    bundle = load_digits()
    grey = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    digits = LabelledImages(grey, bundle.target, [str(digit) for digit in range(10)], channels=1, origin="digits")
    rest, test = stratified_split(digits.targets, _TEST, _SEED)
    train, val = stratified_split(digits.targets[rest], _VAL, _SEED)
    parts = {"train": rest[train], "val": rest[val], "test": test}
    return {split: digits.subset(indices, f"digits {split}") for split, indices in parts.items()}
