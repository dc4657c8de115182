"""The device that a job computes on."""

from __future__ import annotations

import re

import torch

__all__ = ["choose_device"]


def choose_device(text: str | None = None) -> torch.device:
    """Choose the device of a job.

    Args:
        text: cpu, cuda, cuda:N or mps; None or auto is CUDA where there is some, else the CPU.

    Raises:
        ValueError: the text is not a device, or this machine does not have it.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if text in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", text):
        raise ValueError(f"--device is {text!r}; give cpu, cuda, cuda:N or mps")
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device is {text!r}, but torch finds {torch.cuda.device_count()} CUDA devices; see 'regard doctor', or "
            "use cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device is 'mps', but torch finds no Apple GPU; see 'regard doctor', or use cpu")
    return device
