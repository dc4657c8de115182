"""Heads under data parallelism: every trainable weight takes part in each step, and none is changed in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from all_heads import EVERY, bags, small
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("case", EVERY)
def test_steps_follow_each_other(case: str, group: None) -> None:
    head = small(case).train()
    parallel = DistributedDataParallel(head)
    optimiser = torch.optim.SGD([weight for weight in head.parameters() if weight.requires_grad], lr=0.1)
    labels = torch.tensor([0, 2])
    for step in range(3):  # a weight without a gradient is noticed in the next step
        optimiser.zero_grad()
        parallel(bags(2, 12, seed=step), labels=labels).loss(labels).backward()
        optimiser.step()
        getattr(head, "after_step", lambda: None)()
    assert all(weight.isfinite().all() for weight in head.parameters())
