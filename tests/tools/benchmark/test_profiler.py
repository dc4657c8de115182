"""What the benchmark counts."""

from importlib import import_module

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from regard.tools.benchmark.profiler import _BESIDE, multiply_adds
from regard.vision.attention import ATTENTION, build_attention
from regard.vision.attention.plain import PLAIN

#: Products of matrices and convolutions have one of these in their names; element-wise ones have not.
PRODUCTS = ("mm", "conv", "attention", "mv", "dot", "linear", "einsum", "bilinear")


class Names(TorchDispatchMode):
    """Collects the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[object] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ATTENTION)
def test_no_product_of_a_block_is_overlooked(name: str) -> None:
    block, x = build_attention(name, 64).eval(), torch.randn(2, 14, 14, 64)
    for batch in (x, x[:1]):
        with torch.no_grad(), Names() as names:
            block(batch)
        products = {operation for operation in names.called if any(part in str(operation) for part in PRODUCTS)}
        assert products
        assert products <= flop_registry.keys() | _BESIDE.keys()


@pytest.mark.parametrize("name", ["softmax", "biformer", "halonet", "sparsifiner"])
def test_a_block_and_its_plain_formulation_count_alike(name: str) -> None:
    ours = build_attention(name, 64, {"sparsifiner": {"keep_rate": 1.0}}.get(name))
    module, _, attribute = PLAIN[name].partition(":")
    plain = getattr(import_module(f"regard.vision.attention.plain.{module}"), attribute)(64, num_heads=2)
    x = torch.randn(1, 16, 16, 64)
    assert multiply_adds(ours, x) == pytest.approx(multiply_adds(plain, x.permute(0, 3, 1, 2)), rel=0.35)


def test_attention_counts_both_of_its_products() -> None:
    tokens, dim = 8 * 8, 64
    found = multiply_adds(build_attention("softmax", dim), torch.randn(1, 8, 8, dim))
    assert found == 4 * tokens * dim**2 + 2 * tokens**2 * dim


def test_depthwise_convolutions_count_by_group() -> None:
    assert multiply_adds(nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.randn(1, 8, 5, 5)) == 8 * 9 * 25


@pytest.mark.parametrize(
    ("name", "published"),
    [("vit_tiny_patch16_224", 1.08 + 12 * 2 * 197**2 * 192 / 1e9), ("van_b0", 0.88), ("resnet18", 1.82)],
)
def test_models_count_as_published(name: str, published: float) -> None:
    import_module("regard.vision")
    found = multiply_adds(timm.create_model(name), torch.zeros(1, 3, 224, 224)) / 1e9
    assert found == pytest.approx(published, rel=0.03)
