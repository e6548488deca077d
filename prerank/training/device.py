"""Where training runs, and how this process is set for it."""

from __future__ import annotations

from functools import cache

import torch

from prerank.config import ConfigError
from prerank.config import Training as Settings
from prerank.training.allocator import keep_freed_memory


def configure(settings: Settings) -> None:
    """Threads, matrix products and memory of this process, as the settings want them."""
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision(_products(settings))


def _products(settings: Settings) -> str:
    """torch's word for how fp32 products are made: rounded ones only where they were asked for."""
    if settings.matmul != "auto":
        return settings.matmul
    return "highest" if device_of(settings).type != "cpu" or _medium_rounds() else "medium"


@cache
def _medium_rounds() -> bool:
    """Whether "medium" loses digits on this CPU: with AMX oneDNN makes bf16 of the factors; elsewhere it only takes the quicker library."""
    before = torch.get_float32_matmul_precision()
    x = torch.linspace(1, 2, 64 * 64).view(64, 64)
    try:
        torch.set_float32_matmul_precision("medium")
        product = x @ x
    finally:
        torch.set_float32_matmul_precision(before)
    exact = x.double() @ x.double()
    return bool(((product - exact) / exact).abs().max() > 1e-5)


def device_of(settings: Settings) -> torch.device:
    """The device that `device: auto | cpu | cuda..` means here. Raises ConfigError when it is not there."""
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = settings.device.partition(":")
    if kind not in ("cpu", "cuda") or (":" in settings.device and not number.isdecimal()):
        raise ConfigError(f"training.device: must be auto, cpu or cuda[:n]; got '{settings.device}'")
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"training.device: '{settings.device}' was asked for, but torch sees no GPU; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"training.device: '{settings.device}' was asked for, torch sees {torch.cuda.device_count()} GPUs; use auto")
    return device
