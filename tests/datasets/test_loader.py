import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.datasets.image_reading import UnreadableImageError
from regard.datasets.labelled_images import LabelledImages
from regard.datasets.loader import EpochOrder, EvenShard, ImageLoader, TrainLoader, seeded_random


def noise(image: Any) -> torch.Tensor:
    return torch.rand(1) + random.random() + float(np.random.rand())


def images(count: int = 12) -> LabelledImages:
    return LabelledImages(np.zeros((count, 4, 4), np.uint8), np.arange(count), list(map(str, range(count))))


def loader(workers: int = 0, world_size: int = 1, rank: int = 0, **options: Any) -> TrainLoader:
    order = EpochOrder(12, batch_size=4, seed=7, world_size=world_size, rank=rank)
    return TrainLoader(
        images().viewed(noise), sampler=order, batch_size=4 // world_size, num_workers=workers, **options
    )


def epoch(source: TrainLoader, number: int) -> list[list[float]]:
    iterator = iter(source)  # as Lightning does, before the epoch is set
    source.sampler.set_epoch(number)
    return [torch.stack([values[:, 0].double(), indices.double()]).tolist() for values, indices in iterator]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_is_the_same_in_one_go_and_after_a_restart(workers: int, persistent: bool) -> None:
    options = {"persistent_workers": True} if persistent and workers else {}
    going = loader(workers, **options)
    in_one_go = [epoch(going, number) for number in range(3)]
    torch.manual_seed(99)
    random.seed(99)
    assert epoch(loader(workers, **options), 2) == in_one_go[2]
    assert in_one_go[0] != in_one_go[1] != in_one_go[2]


def test_workers_do_not_change_an_epoch() -> None:
    assert epoch(loader(0), 1) == epoch(loader(2), 1)


def test_processes_share_the_same_global_batches() -> None:
    whole = epoch(loader(), 1)
    parts = [epoch(loader(world_size=2, rank=rank), 1) for rank in (0, 1)]
    for number, (values, indices) in enumerate(whole):
        shared = {index: value for part in parts for value, index in zip(*part[number], strict=True)}
        assert shared == dict(zip(indices, values, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_as_they_were(workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    epoch(loader(workers), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # Python's is drawn from by beartype, in tests


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_within_an_epoch(workers: int) -> None:
    whole, broken, resumed = epoch(loader(), 3), loader(workers), loader(workers)
    broken.sampler.set_epoch(3)
    next(iter(broken))
    resumed.load_state_dict(broken.state_dict())
    assert epoch(resumed, 3) == whole[1:]
    assert epoch(resumed, 3) == whole


def test_a_state_of_another_epoch_skips_nothing() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 2, "batches": 3})
    assert len(epoch(resumed, 3)) == 3


def test_a_later_epoch_leaves_out_other_images() -> None:
    order = EpochOrder(10, batch_size=4, seed=0)
    left_out = []
    for number in range(5):
        order.set_epoch(number)
        left_out.append(tuple(sorted({*range(10)} - {draw.image for draw in order})))
    assert {len(indices) for indices in left_out} == {2}
    assert len(set(left_out)) > 1


def test_a_set_smaller_than_a_batch_is_used_whole() -> None:
    assert sorted(draw.image for draw in EpochOrder(3, batch_size=8, seed=0)) == [0, 1, 2]
    shards = [list(EpochOrder(5, batch_size=8, seed=0, world_size=2, rank=rank)) for rank in (0, 1)]
    assert [len(shard) for shard in shards] == [2, 2]


def test_fewer_images_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 training images are too few for 4 processes"):
        EpochOrder(3, batch_size=4, seed=0, world_size=4)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [5, 6, 7, 16, 31])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_evaluation_sees_every_image_once_in_as_many_batches(count: int, size: int, world_size: int) -> None:
    shards = [EvenShard(count, batch_size=size, world_size=world_size, rank=rank) for rank in range(world_size)]
    batches = [list(shard) for shard in shards]
    assert sorted(index for shard in batches for batch in shard for index in batch) == list(range(count))
    assert {len(shard) for shard in batches} == {len(shards[0])}
    assert all(0 < len(batch) <= size for shard in batches for batch in shard)


@pytest.mark.parametrize(("count", "size", "world_size"), [(0, 4, 1), (2, 4, 3), (3, 1, 2)])
def test_images_that_cannot_be_shared_out_are_refused(count: int, size: int, world_size: int) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        EvenShard(count, batch_size=size, world_size=world_size)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_raised_with_its_path(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"broken")
    source = LabelledImages([str(path)] * 2, [0, 1], ["a", "b"])
    with pytest.raises(UnreadableImageError) as caught:
        list(ImageLoader(source, batch_size=2, num_workers=workers))
    assert caught.value.path == str(path)
    assert str(caught.value) == f"cannot read the image {path}: it is not an image that Pillow can read"


def test_an_ordinary_loader_keeps_the_type_and_the_path(tmp_path: Path) -> None:
    source = LabelledImages([str(tmp_path / "gone.png")], [0], ["a"])
    with pytest.raises(UnreadableImageError, match=r"gone\.png: no such file"):
        list(torch.utils.data.DataLoader(source, num_workers=1))


def test_seeded_random_is_restored_after_an_error() -> None:
    state = random.getstate()
    with pytest.raises(ZeroDivisionError), seeded_random(3):
        _ = random.random() / 0
    assert random.getstate() == state


def test_nested_seeded_random_is_restored() -> None:
    with seeded_random(1):
        first, second = np.random.rand(), np.random.rand()
    with seeded_random(1):
        assert np.random.rand() == first
        with seeded_random(2):
            np.random.rand()
        assert np.random.rand() == second
