"""Vision: attention blocks, hosts for them, published backbones, and image classification.

Importing it registers the backbones with timm.
"""

from __future__ import annotations

if "." not in __name__:  # imported from a checkout by its bare name, which other modules have too
    import runpy

    runpy.run_path(f"{__path__[0]}/../shadowing.py")["hand_over"](__name__)
else:
    from . import backbones
    from .attention import ATTENTION, AttentionBlock, attention_class, build_attention
    from .classification import ImageClassifier
    from .hosts import HOSTS
    from .swap import create_model

__all__ = [
    "ATTENTION",
    "HOSTS",
    "AttentionBlock",
    "ImageClassifier",
    "attention_class",
    "backbones",
    "build_attention",
    "create_model",
]
