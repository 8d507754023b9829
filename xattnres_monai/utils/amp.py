"""Automatic mixed precision: the data type in which networks compute."""

from __future__ import annotations

import torch

__all__ = ["autocast", "default_precision"]

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def default_precision() -> str:
    """Return ``bf16`` on a GPU that supports it, ``fp16`` on other GPUs and ``fp32`` on a CPU."""
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: str) -> dict[str, torch.dtype]:
    """Return ``amp_kwargs`` for MONAI's engines. Raise a ``ValueError`` if the precision is unknown."""
    if precision not in PRECISIONS:
        raise ValueError(f"got precision={precision!r}, expected one of {', '.join(PRECISIONS)}")
    return {"dtype": PRECISIONS[precision]}
