"""One golden file: what went into the authors' code and what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fill import fill, normal
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """A golden file, read.

    Attributes:
        reference: repository@commit and class or function.
        config: constructor arguments of the reference.
        state: its weights, under its own names.
        inputs: name -> tensor, in the reference's order.
        expected: output name -> tensor, cut where the file says so. A file of mere data, with nothing called an
            output, is all output.
        cuts: output name -> what part of it is stored, e.g. "[:, :64]".
        notes: in the words of whoever made the file.
        metadata: all of the file's metadata.
    """

    reference: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    cuts: dict[str, str]
    notes: str
    metadata: dict[str, str]

    def __repr__(self) -> str:
        return f"Case({self.reference}, {self.config})"


def read_case(path: Path) -> Case:
    """Read a file and make the weights and inputs that it describes."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    computed = json.loads(metadata.get("computed", "[]"))
    shapes = {name: shape for name, shape in json.loads(metadata.get("shapes", "{}")).items() if name not in computed}
    inputs = {}
    for name, shape in json.loads(metadata.get("inputs", "{}")).items():
        key = f"input.{name}"
        if key in stored:
            inputs[name] = stored[key]
        elif isinstance(shape, list):  # otherwise words that tell how to make it, for the check to follow
            inputs[name] = normal(key, shape)
    drawn = {name.removeprefix("input."): tensor for name, tensor in stored.items() if name.startswith("input.")}
    inputs |= {name: tensor for name, tensor in drawn.items() if name not in inputs}  # what the authors' code drew
    outputs = {_bare(name): tensor for name, tensor in stored.items() if name.startswith("output.")}
    return Case(
        reference=metadata["reference"].strip(),
        config=json.loads(metadata.get("config", "{}")),
        state=_scaled(fill(shapes), metadata),
        inputs=inputs,
        expected=outputs or {name: tensor for name, tensor in stored.items() if not name.startswith("input.")},
        cuts={_bare(name): cut for name, cut in json.loads(metadata.get("slice", "{}")).items()},
        notes=metadata.get("notes", ""),
        metadata=metadata,
    )


def cut(tensor: Tensor, description: str) -> Tensor:
    """The part of a tensor that a file stores; the description has a subscript, as in "y[:, :8, ::2]".

    Raises:
        ValueError: the subscript is not one of whole numbers, colons and an ellipsis.
    """
    subscript = re.search(r"\[([^]]*)]", description)
    if subscript is None:
        raise ValueError(f"no subscript in {description!r}")
    return tensor[tuple(_index(part.strip(), description) for part in subscript[1].split(","))]


def compare(actual: Mapping[str, Tensor], case: Case, tolerances: Mapping[str, float] | None = None) -> None:
    """Every output of the file is there and within 1e-4 of its standard deviation; of a single number, of its size.

    Where an area asks for another tolerance, `tolerances` gives it, absolute, by the output's name.
    """
    assert case.expected, "the file holds no output"
    for name, expected in case.expected.items():
        assert name in actual, f"the check gives {sorted(actual)}, the file asks for {name!r}"
        found = actual[name].detach()
        if name in case.cuts:
            found = cut(found, case.cuts[name])
        exact = expected.double()
        deviation = exact.std(correction=0) if exact.numel() > 1 else exact.abs().sum()
        tolerance = (tolerances or {}).get(name, 1e-4 * deviation.item())
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def _scaled(state: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    gain, scale = float(metadata.get("gain", 1)), json.loads(metadata.get("scale", "{}"))
    unknown = set(scale) - set(state)
    if unknown:
        raise ValueError(f"scale names tensors that are not there: {sorted(unknown)}")
    return {
        name: tensor * (gain if tensor.ndim >= 2 else 1) * scale.get(name, 1) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def _bare(name: str) -> str:
    return name.removeprefix("output.")


def _index(part: str, description: str) -> Any:
    if part in ("...", ""):
        return ...
    if re.fullmatch(r"-?\d+", part):
        return int(part)
    if not re.fullmatch(r"(-?\d+)?(:(-?\d+)?){1,2}", part):
        raise ValueError(f"cannot read {part!r} of {description!r}")
    return slice(*(int(number) if number else None for number in part.split(":")))
