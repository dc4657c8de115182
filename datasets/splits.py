"""Hold out a part of labelled images, each class in its proportion."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Num

__all__ = ["stratified_split"]


def stratified_split(
    targets: Num[np.ndarray, "images *labels"],
    held: float | int,
    seed: int,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Split indices in two; both parts have the classes in the same proportion, as far as whole images go.

    Of each class at least one image is kept. Images with several labels are grouped by their combination.

    Args:
        targets: the class of each image, or its multi-hot row.
        held: images to hold out: a fraction (a float in 0-1, both excluded) or their number (an integer).
        seed: the same seed and targets give the same parts.

    Returns:
        Sorted indices of what is kept and of what is held out.

    Raises:
        ValueError: the fraction is not in 0-1, or so much cannot be held out.

    Example:
        >>> kept, held = stratified_split(np.array([0] * 8 + [1] * 4), 0.25, seed=0)
        >>> len(kept), (held < 8).sum(), (held >= 8).sum()
        (9, np.int64(2), np.int64(1))
    """
    images = len(targets)
    if isinstance(held, float) and not 0 < held < 1:
        raise ValueError(f"cannot hold out the fraction {held} of the images; give a number between 0 and 1")
    wanted = max(1, round(held * images)) if isinstance(held, float) else held
    axis = 0 if targets.ndim > 1 else None
    _, group, sizes = np.unique(targets, axis=axis, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    if not 0 < wanted <= images - len(sizes):
        raise ValueError(
            f"cannot hold out {wanted} of {images} images and keep one of each of {len(sizes)} classes; "
            "use a smaller fraction or add images"
        )
    share = wanted * sizes / images
    take = np.minimum(np.floor(share).astype(int), sizes - 1)
    while take.sum() < wanted:  # whole images for the largest remainders
        room = np.where(take < sizes - 1, share - take, -np.inf)
        short = wanted - int(take.sum())
        take[np.argsort(-room, kind="stable")[: min(short, int(np.isfinite(room).sum()))]] += 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(images)
    order = order[np.argsort(group[order], kind="stable")]  # group by group, shuffled within
    rank = np.arange(images) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = rank < np.repeat(take, sizes)
    return np.sort(order[~out]), np.sort(order[out])
