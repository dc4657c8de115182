"""The second stream: one that is left behind never gets in the way of another."""

from __future__ import annotations

import gc
from typing import Any

import torch
from greenlet import getcurrent
from tiny_lvlms import IMAGE, tiny_lvlm

from regard.mllm import VDD, intervene


def test_a_run_that_is_forgotten_while_another_one_reads_hands_nothing_over() -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs([[5, IMAGE, 7, 8], [5, 6, IMAGE, 9, 10]])

    def answered() -> torch.Tensor:
        with intervene(tiny.model, VDD(alpha=1.0)) as session:
            return session.generate(**inputs, max_new_tokens=4)

    def forget(*_: Any) -> None:
        if getcurrent().parent is not None:  # within the second stream
            gc.collect()

    gc.disable()  # the first answer's run waits in a reference cycle until `forget` finds it
    try:
        first = answered()
        handle = tiny.text_stack.register_forward_hook(forget)
        second = answered()
        handle.remove()
    finally:
        gc.enable()
    assert torch.equal(first, second)
