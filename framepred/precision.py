"""In what precision the heavy operations compute."""

from __future__ import annotations

import contextlib

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def autocast(device: str | torch.device, precision: str = "auto"):
    """A context in which the heavy operations run in bfloat16, for "bf16", or for "auto" on a device that computes with it.

    "fp32" leaves PyTorch as it is: its convolutions then still use TF32 on a GPU that has it (10 bits of mantissa), unless
    `torch.backends.cudnn.allow_tf32` is False.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    kind = torch.device(device).type
    if precision == "fp32" or (precision == "auto" and not computes_bf16(kind)):
        return contextlib.nullcontext()
    return torch.autocast(kind, torch.bfloat16)


def without_autocast(device: str | torch.device):
    """A context in which operations compute in the precision of their operands, whatever `autocast` there is around it."""
    kind = torch.device(device).type
    return contextlib.nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def computes_bf16(kind: str) -> bool:
    """Whether devices of a kind, "cuda" or "cpu", compute in bfloat16 and do not only emulate it."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # On a CPU without these instructions bfloat16 is emulated and several times slower than float32.
    supported = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return kind == "cpu" and any(check() for check in supported if check)
