"""Every block compiled by inductor gives the same numbers; hosts are compiled with a cheaper backend elsewhere."""

import os
import shutil
import sysconfig
from pathlib import Path

import jaxtyping
import pytest
import torch
from tiny_hosts import REPRESENTATIVES, untie

from regard.vision.attention import ATTENTION, build_attention

compiler = next(filter(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++")), None)
header = Path(sysconfig.get_path("include")) / "Python.h"
pytestmark = pytest.mark.skipif(
    not (compiler and header.is_file()), reason="inductor needs a C++ compiler and the header Python.h"
)


@pytest.mark.parametrize(
    "name", [name if name in REPRESENTATIVES else pytest.param(name, marks=pytest.mark.full) for name in ATTENTION]
)
def test_compiled_by_inductor_it_gives_the_same_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of shapes do not compile
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    block, x = build_attention(name, 16, num_heads=2).eval(), torch.randn(2, 5, 7, 16)
    untie(block)
    compiled = torch.compile(block, fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
