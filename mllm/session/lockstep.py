"""An image-free forward pass that runs in lockstep with the main one, layer by layer.

Vision-aware head reinforcement compares, layer after layer, each head's output with and without the image, when the
heads of all earlier layers are already reinforced in both passes. The image-free pass is a coroutine (a greenlet): it
runs to the next layer that is compared, hands over its heads, and waits for the factors that are chosen there. It costs
one prefill of the prompt's text; the main pass is the ordinary one.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import torch
from greenlet import getcurrent, greenlet
from jaxtyping import Float
from torch import Tensor

__all__ = ["Lockstep"]


class Lockstep:
    """Runs a forward pass without the image in lockstep with the main one.

    Args:
        read: runs the image-free pass, whose layers call `hand_over`.
        beams: rows of the main batch per sample; the image-free batch has one row per sample.

    Attributes:
        running: whether the image-free pass is running, and not the main one.
    """

    def __init__(self, read: Callable[[], object], beams: int) -> None:
        self.running = False
        self._beams = beams
        self._pass = greenlet(lambda: (read(), None)[1])
        self._pass.gr_context = contextvars.copy_context()
        self._handed_over: tuple[int, Tensor] | None = None
        self._factors: Tensor | None = None

    def heads(self, layer: int) -> Float[Tensor, "samples heads head_dim"]:
        """Output of the heads of `layer` at the last token, without the image."""
        if self._handed_over is None or self._handed_over[0] != layer:
            self._handed_over = self._resume()
        assert self._handed_over is not None, f"the image-free pass ended before layer {layer}"
        assert self._handed_over[0] == layer, (self._handed_over[0], layer)
        return self._handed_over[1]

    def set_factors(self, factors: Float[Tensor, "batch heads"] | None) -> None:
        """Set the factors for the layer whose heads were asked for last."""
        self._factors = factors if factors is None else factors[:: self._beams]

    def hand_over(self, layer: int, heads: Float[Tensor, "samples heads head_dim"]) -> Tensor | None:
        """Called in the image-free pass: hand over the heads, wait, and return the factors."""
        parent = getcurrent().parent
        assert parent is not None
        parent.switch((layer, heads))
        return self._factors

    def finish(self) -> None:
        """Run the image-free pass to its end."""
        if self._pass:
            assert self._resume() is None, "the image-free pass has layers that the main one does not have"

    def abandon(self) -> None:
        """Stop the image-free pass where it is."""
        if self._pass:
            self._pass.parent = getcurrent()  # control returns to the caller, not to whoever started the pass
            with torch.no_grad():  # the pass leaves its own no_grad, which must not change the caller's mode
                self._pass.throw()

    def _resume(self) -> tuple[int, Tensor] | None:
        self.running = True
        try:
            return self._pass.switch()
        finally:
            self.running = False
