"""What every run with settings needs: whether it can be made, where, and how its settings are written down."""

from __future__ import annotations

import os
from typing import Any

import torch

RESULT = "result.json"


def check_running(settings: Any) -> None:
    """Refuse what no run can be made with. Raises ValueError."""
    if settings.batch_size < 1:
        raise ValueError(f"batch_size is {settings.batch_size}; give a whole number >= 1")
    check_threads(settings.threads)
    if getattr(settings, "attacks", None) == ():
        raise ValueError("attacks is empty, and robust accuracy needs an attack; name at least one, e.g. [fgsm, pgd]")


def check_threads(threads: int) -> None:
    """Refuse a number of threads that cannot be, or that would bring the process down. Raises ValueError."""
    most = 64 * (os.cpu_count() or 1)  # settings of a larger machine still run here
    if not 0 <= threads <= most:
        raise ValueError(f"threads is {threads}; give a whole number from 0 (torch's choice) to {most}")


def set_up_device(settings: Any) -> torch.device:
    """Set the number of threads and find the device. Raises ValueError for a device that is not there."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0][:60]
        raise ValueError(f"device {name!r} cannot be used ({reason}); give cpu, cuda, cuda:1 or auto") from None
    return device
