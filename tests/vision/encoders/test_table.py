"""Every row builds the published network: its parameters are counted, and it runs on the meta device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from regard.vision.encoders import ENCODERS, build_encoder, table
from regard.vision.encoders.build import build_network, encoder_of
from regard.vision.encoders.table import NORMALISATION, NOT_BUILT

# Millions of parameters, as papers and cards have them (of ResNet-50 what comes before its last stage), and register
# tokens with the class token. Names in one line have one architecture; rows of timm's own ViTs are omitted.
PUBLISHED = {
    "resnet50": (8.543, 1),
    "uni2-h": (681.4, 9),
    "virchow2": (631.2, 5),
    "gigapath": (1134.95, 1),
    "h-optimus-0 h-optimus-1 openmidnight": (1134.8, 5),
    "h0-mini": (85.7, 5),
    "phikon": (85.8, 1),
    "phikon-v2": (303.4, 1),
    "midnight-12k": (1136.5, 1),
    "conch-v1.5": (306.7, 1),
    "ctranspath": (27.5, 1),
    "lunit-vits16 kaiko-vits16": (21.7, 1),
    "kaiko-vitl14": (304.4, 5),
}


#: The largest networks, which take seconds to build.
LARGE = ("uni2-h", "virchow2", "gigapath", "h-optimus-0 h-optimus-1 openmidnight", "midnight-12k", "kaiko-vitl14")


@pytest.mark.parametrize(
    "names", [pytest.param(names, marks=pytest.mark.full if names in LARGE else ()) for names in PUBLISHED]
)
def test_a_row_has_its_published_size_and_width(names: str) -> None:
    first, *others = (ENCODERS[name] for name in names.split())
    for other in others:
        assert (other.architecture, other.dim, other.size) == (first.architecture, first.dim, first.size)
    millions, prefix = PUBLISHED[names]
    with torch.device("meta"):
        network = build_network(first).eval()
        encoder = encoder_of(names, first, network)
        assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.002)
        with torch.inference_mode():
            side = first.resize or first.size
            features = encoder(torch.zeros(2, side, side, 3, dtype=torch.uint8))
    assert features.shape == (2, first.dim)
    assert encoder.prefix == prefix


def test_rows_are_whole() -> None:
    for name, row in ENCODERS.items():
        assert name == name.lower()
        assert row.normalisation in NORMALISATION
        assert row.source or row.needs or row.kind == "embedded"
        assert row.licence
        assert row.paper
        assert bool(row.needs) == (row.kind in ("remote", "ctranspath"))


def test_what_is_not_built_says_why() -> None:
    assert not NOT_BUILT.keys() & ENCODERS.keys()
    with pytest.raises(ValueError, match="musk is known but not built here: it needs the package musk"):
        build_encoder("musk")


def test_the_table_itself_imports_no_torch() -> None:
    file = Path(table.__file__)
    code = (
        "import importlib.util, sys; "
        f"spec = importlib.util.spec_from_file_location('table', {str(file)!r}); "
        "sys.modules['table'] = module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "assert module.ENCODERS['uni'].dim == 1024; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
