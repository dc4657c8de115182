"""Every block of the table works in every family of hosts."""

import copy
import io
import warnings
from pathlib import Path

import jaxtyping
import pytest
import timm
import torch
from tiny_hosts import build, built, cells, images

from regard.vision import ATTENTION

every_cell = pytest.mark.parametrize(("host", "attention"), cells())
#: For checks that take seconds: a mixer and a gate in four families by default.
some_cells = pytest.mark.parametrize(
    ("host", "attention"),
    cells(("vit with prefix", "van"), ("metaformer", "van"), ("resnet", "ela"), ("mobilenet", "ela"), every=False),
)


@pytest.mark.parametrize(("host", "attention"), cells(*(("vit with prefix", block) for block in ATTENTION)))
def test_every_parameter_learns(host: str, attention: str) -> None:
    model = build(host, attention).train()
    logits = model(images())
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    ours = [parameter for name, parameter in model.named_parameters() if ".attention." in name]
    assert any(parameter.grad.any() for parameter in ours) or (attention == "softmax" and host.startswith("vit"))


@every_cell
def test_bfloat16_is_near_float32(host: str, attention: str) -> None:
    """No logit is off by more than a twentieth of the largest one (0.2 to 3 % where this was written)."""
    model, x = built(host, attention), images()
    half = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        expected, logits = model(x), half(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x)
    for found in (logits, mixed):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


@some_cells
def test_under_bfloat16_autocast_every_gradient_is_finite(host: str, attention: str) -> None:
    model = build(host, attention).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images()).float().square().mean()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@some_cells
def test_it_compiles_whole(host: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of shapes do not compile
    model = built(host, attention)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()))
    torch._dynamo.reset()


@some_cells
def test_it_exports_with_any_batch(host: str, attention: str) -> None:
    model = built(host, attention)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))  # of torch about itself
        exported = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.testing.assert_close(exported.module()(images(3)), model(images(3)))


@every_cell
def test_a_saved_folder_loads_bit_equal(host: str, attention: str, tmp_path: Path) -> None:
    model = built(host, attention)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))


@some_cells
def test_copies_pickles_and_states_are_the_same_model(host: str, attention: str) -> None:
    model = built(host, attention)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    fresh = build(host, attention).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(images())
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False), fresh):
            assert torch.equal(other(images()), expected)
