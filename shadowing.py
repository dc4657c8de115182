"""Let other modules win over a folder of this package that is imported as a top-level module.

The folders of the package lie at the top of a checkout. Python started there finds them first, so that
`import datasets` would give this package's data instead of Hugging Face's library. When a folder is imported under its
bare name, its `__init__.py` calls `hand_over`. The folder then behaves like one without `__init__.py` (PEP 420): the
next module of that name on `sys.path` is imported instead, and only if there is none, the import gives an empty module.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["hand_over"]


def hand_over(name: str) -> None:
    """Replace a folder that is being imported by the next module of its name; without one, it stays, empty.

    Args:
        name: the top-level name, such as `datasets`.
    """
    checkout = Path(__file__).resolve().parent
    path = [entry for entry in sys.path if Path(entry or ".").resolve() != checkout]
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None:
        sys.modules[name].__file__ = None  # so are namespace packages recognised
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(sys.modules[name])
