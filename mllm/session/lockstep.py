"""A second forward pass that keeps in step with the first, layer by layer.

Vision-aware head reinforcement compares, in one layer after the other, each head's output with and without the image,
when the heads of all earlier layers are reinforced already in both runs. The run without the image is a coroutine (a
greenlet): it goes on to the next layer that is compared, hands over its heads, and waits for the factors that were
chosen there. So it costs one reading of the prompt's text, and the image's own run is the ordinary one.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from greenlet import getcurrent, greenlet
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .call import Call

__all__ = ["Lockstep"]


class Lockstep:
    """Runs `read`, a forward pass without the image, in step with the forward pass of `call`.

    Args:
        call: the running call; its `stream` tells whose layers are running.
        read: runs the other pass; its layers come to `offer`.
    """

    def __init__(self, call: Call, read: Callable[[], object]) -> None:
        self._call = call
        self._free = greenlet(lambda: (read(), None)[1])
        self._free.gr_context = contextvars.copy_context()
        self._offered: tuple[int, Tensor] | None = None
        self._factors: Tensor | None = None

    def heads(self, layer: int) -> Float[Tensor, "samples heads head_dim"]:
        """What the heads of `layer` put out at the last token, without the image."""
        if self._offered is None or self._offered[0] != layer:
            self._offered = self._resume()
        assert self._offered is not None, f"the run without the image ended before layer {layer}"
        assert self._offered[0] == layer, (self._offered[0], layer)
        return self._offered[1]

    def answer(self, factors: Float[Tensor, "batch heads"] | None) -> None:
        """The factors that were chosen in the layer whose heads were asked for."""
        self._factors = factors if factors is None else factors[:: self._call.beams]

    def offer(self, layer: int, heads: Float[Tensor, "samples heads head_dim"]) -> Tensor | None:
        """Called in the run without the image: hand over the heads, wait, and take the factors."""
        parent = getcurrent().parent
        assert parent is not None
        parent.switch((layer, heads))
        return self._factors

    def finish(self) -> None:
        """Let the run without the image end."""
        if self._free:
            assert self._resume() is None, "the run without the image has layers that the other one has not"

    def abandon(self) -> None:
        """End the run without the image where it stands."""
        if self._free:
            self._free.parent = getcurrent()  # who ends it goes on, not who began it
            with torch.no_grad():  # its own leaving of no_grad must not be the last word
                self._free.throw()

    def _resume(self) -> tuple[int, Tensor] | None:
        with self._others_turn():
            return self._free.switch()

    @contextmanager
    def _others_turn(self) -> Iterator[None]:
        self._call.stream = "free"
        try:
            yield
        finally:
            self._call.stream = "main"
