"""The network that a training starts from."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

from torch import nn

from ...vision import create_model
from ..settings.train import BackboneSettings

__all__ = ["build_backbone"]


def build_backbone(settings: BackboneSettings, **arguments: Any) -> nn.Module:
    """Create the model of `settings`; `arguments` are further ones of `regard.vision.create_model`.

    Raises:
        ValueError: an unknown model or option, or weights that do not fit.
        OSError: published weights cannot be fetched.
    """
    name, options = settings.name, settings.options
    try:
        return create_model(name, pretrained=settings.pretrained, weights=settings.weights, **arguments, **options)
    except URLError as error:
        raise OSError(
            f"the published weights of {name} cannot be fetched ({error.reason}); copy the file "
            "here and give it as --backbone.weights FILE, or start at random with --backbone.pretrained false"
        ) from error
    except TypeError as error:  # an argument that the model's constructor does not have
        raise ValueError(f"--backbone.options {options} do not suit {name}: {error}") from error
