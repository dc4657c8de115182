"""Extract the tensors of an untrusted pickle without running anything that it asks for.

There are two layers of protection.

1. Nothing foreign is called. `torch.load` is given (by its official argument `pickle_module`) an unpickler that
   repaths every import by `Inert`, a class that does nothing, except PyTorch's functions that build a tensor. NumPy is
   not among them, since no array is kept. TorchScript archives and tar files, which PyTorch reads in other ways, are
   refused.
2. The file is read in a separate process with an empty environment and working folder, a time limit, limits on memory,
   CPU time, open files and written bytes where the system has them, and without a network where Linux lets users give
   it up (`unshare`). It still protects if the first layer should fail.

The result is passed back as a safetensors file, which can hold nothing but tensors.

This file is also the program of that process: it must not import from the package.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

__all__ = ["Inert", "Unpickler", "extract", "load", "tensors_in"]

#: What may be imported: functions and types that build tensors and plain containers, and do nothing else.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): torch.Size,
    **{("torch._utils", name): getattr(torch._utils, name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")},
    ("torch._utils", "_rebuild_tensor_v3"): torch._utils._rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    **{("torch", str(dtype)[6:]): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
}
_SECONDS = 600


class Inert(dict):
    """A substitute for whatever a pickle imports: accepts any arguments, items and state, and does nothing."""

    dump_patches = False  # PyTorch asks old modules for it

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Create an empty object."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Return another inert object."""
        return Inert()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: Any) -> None:
        """Keep the state of the original object, which holds the tensors of a module."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.update(part)

    def append(self, item: Any) -> None:
        """Keep an item of a list subclass under its number."""
        self[len(self)] = item

    def extend(self, items: Any) -> None:
        """Append several items."""
        for item in items:
            self.append(item)

    add = append


class Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing but `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the allowed object, or `Inert`."""
        return _ALLOWED.get((module, name), Inert)


def load(file: Any, **arguments: Any) -> Any:
    """Load as `pickle.load` does; part of the interface of `pickle_module`."""
    return Unpickler(file, **arguments).load()


def tensors_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Iterate over the tensors in nested dicts and unpickled modules, with the keys that lead to them."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Inert) and "_parameters" in value:
        for name, tensor in _of_module(value):
            yield (*path, name), tensor
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            yield from tensors_in(inside, (*path, str(key)))


def _of_module(module: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """What the state dict of a pickled module would have held."""
    passing = module.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(module.get(kind, {})).items():
            if isinstance(tensor, torch.Tensor) and name not in passing:
                yield f"{prefix}{name}", tensor
    for name, child in dict(module.get("_modules", {})).items():
        if isinstance(child, Mapping):
            yield from _of_module(child, f"{prefix}{name}.")


def extract(file: Path) -> tuple[dict[str, Any], str]:
    """Take the tensors out of a file in a separate process.

    Args:
        file: PyTorch's format, zipped or not.

    Returns:
        Nested dicts of tensors as they were in the file, and a description of how the process was isolated.

    Raises:
        ValueError: no tensors can be extracted, with the reason.
    """
    unshare = shutil.which("unshare")
    cut = [unshare, "--user", "--map-root-user", "--net", "--"] if unshare else []
    if cut and subprocess.run([*cut, shutil.which("true") or "true"], capture_output=True, check=False).returncode:
        cut = []
    # Python needs these to start.
    kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
    with tempfile.TemporaryDirectory(prefix="regard_") as folder:
        result = Path(folder, "tensors.safetensors")
        # isolated from the user's settings, but with the libraries of this process
        start = f"import runpy, sys; sys.path[:] = {sys.path!r}; runpy.run_path({__file__!r}, run_name='__main__')"
        command = [*cut, sys.executable, "-I", "-c", start, str(file.resolve()), str(result)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=kept | {"OMP_NUM_THREADS": "1", "HOME": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{file} yields no tensors: reading it took more than {_SECONDS} seconds") from error
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if done.returncode or not result.is_file():
            raise ValueError(f"{file} yields no tensors: {reason[:300] or f'the sandbox ended with {done.returncode}'}")
        found: dict[str, Any] = {}
        with safe_open(result, framework="pt") as tensors:
            paths = json.loads(tensors.metadata()["paths"])
            for name, path in paths.items():
                inside = found
                for key in path[:-1]:
                    inside = inside.setdefault(key, {})
                inside[path[-1]] = tensors.get_tensor(name)
    network = "without a network" if cut else "with a network (unshare is not available here)"
    return found, f"read in a separate process, {network}; nothing that the file asks for was imported"


def _limit(size: int) -> None:
    """Limit this process to the resources that reading a file of `size` bytes needs."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limits
        return
    room = 8 * size + (1 << 30)
    statm = Path("/proc/self/statm")
    if statm.is_file():  # pages that the libraries occupy, and room to work
        resource.setrlimit(resource.RLIMIT_AS, (int(statm.read_text().split()[0]) * resource.getpagesize() + room,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + (1 << 20),) * 2)


def _main(source: Path, result: Path) -> None:
    """Extract the tensors; runs in the separate process."""
    _limit(source.stat().st_size)
    if tarfile.is_tarfile(source):
        raise ValueError("it is a tar file, the format used before 2017")
    if zipfile.is_zipfile(source) and any(
        name.endswith("/constants.pkl") for name in zipfile.ZipFile(source).namelist()
    ):
        raise ValueError("it is a TorchScript archive, a program; ask for the state dict it was made from")
    warnings.filterwarnings("error", message=".*TorchScript archive.*")  # raised before it is opened as one
    checkpoint = torch.load(source, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
    held: dict[str, torch.Tensor] = {}
    paths: dict[str, tuple[str, ...]] = {}
    for path, tensor in tensors_in(checkpoint):
        if path and tensor.layout == torch.strided and not tensor.is_meta:
            name = str(len(held))
            held[name], paths[name] = tensor.detach().clone(memory_format=torch.contiguous_format), path
    if not held:
        raise ValueError("it holds no tensors")
    save_file(held, result, metadata={"paths": json.dumps(paths)})


if __name__ == "__main__":
    try:
        _main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
