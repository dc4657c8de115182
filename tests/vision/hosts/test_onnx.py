"""Every block in every host exports to ONNX and gives the same numbers in onnxruntime, for any batch size."""

import warnings
from pathlib import Path

import jaxtyping
import pytest
import torch
from tiny_hosts import TINY, build, images, untie

from regard.vision import ATTENTION

onnxruntime = pytest.importorskip("onnxruntime", reason='pip install "regard[onnx]"')
pytest.importorskip("onnxscript", reason='pip install "regard[onnx]"')

SIZE = (33, 66)  # small, since recurrences are unrolled
STAGES = [1]  # one stage is exported like another
#: One mixer and one gate by default; an export takes seconds.
DEFAULT = {("vit with prefix", "van"), ("resnet", "ela")}
CELLS = [
    pytest.param(host, attention, marks=() if (host, attention) in DEFAULT else pytest.mark.full)
    for host in TINY
    for attention in ATTENTION
]
#: (block, host) that gives other numbers or cannot be exported -> the reason. It must fail, or its line must go.
CANNOT: dict[tuple[str, str], str] = {
    (
        "sparsifiner",
        "vit with prefix",
    ): "prefix tokens share a row of its table, so they tie, and each backend keeps others",
}


def by_onnxruntime(model: torch.nn.Module, file: Path, x: torch.Tensor) -> torch.Tensor:
    """Export with two images, run with `x`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning, UserWarning))  # of torch about itself
        sizes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, (images(2, SIZE),), file, dynamo=True, dynamic_shapes=sizes, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(output)


def fails(model: torch.nn.Module, file: Path, x: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(by_onnxruntime(model, file, x), expected, rtol=1e-3, atol=1e-4)
    except Exception:  # whatever torch or onnxruntime say
        return True
    return False


@pytest.mark.parametrize(("host", "attention"), CELLS)
def test_it_gives_the_same_numbers_in_onnxruntime(
    host: str, attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of shapes take long in a trace
    model, x = build(host, attention, SIZE, STAGES).eval(), images(3, SIZE)
    untie(model)
    with torch.no_grad():
        expected = model(x)
    if (attention, host) in CANNOT:
        assert fails(model, tmp_path / "model.onnx", x, expected)
    else:
        found = by_onnxruntime(model, tmp_path / "model.onnx", x)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
