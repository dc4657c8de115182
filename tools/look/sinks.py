"""`regard sinks`: the dimensions that give away a model's attention sinks."""

from __future__ import annotations

import json
import sys

from ...mllm import LVLM, discover_sinks
from ..run.devices import choose_device
from ..settings import SinksSettings
from .ask import open_image, quiet_loading

__all__ = ["run"]


def run(settings: SinksSettings) -> int:
    """Print the dimensions, and how to pass them to the intervention var.

    Args:
        settings: see `SinksSettings`.

    Raises:
        ValueError: an image or model that cannot be read, or no dimension that is as strong as the threshold.
    """
    images = [open_image(name) for name in settings.images]
    with quiet_loading():
        lvlm = LVLM.load(settings.model, device=choose_device(settings.device), dtype=settings.dtype)
    prompts = (lvlm.prepare([image], [settings.question]) for image in images)
    found = discover_sinks(lvlm.model, prompts, threshold=settings.threshold)
    fix = f"var:dimensions=[{','.join(map(str, found.dimensions))}],threshold={found.threshold:g}"
    if settings.json:
        print(json.dumps({"dimensions": found.dimensions, "threshold": found.threshold, "fix": fix}))
        return 0
    print(f"sink dimensions: {', '.join(map(str, found.dimensions))}")
    sys.stderr.write(f"Use them: regard ask IMAGE QUESTION --model {settings.model} --fix '{fix}'\n")
    return 0
