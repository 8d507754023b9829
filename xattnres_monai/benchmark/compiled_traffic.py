"""What a compiled network asks of a device: kernels that the compiler generated, and bytes that all its code moves.

The compiler counts both itself, for the device that it compiles for: a GPU's kernels are others than a CPU's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._inductor import config, metrics

from xattnres_monai.benchmark.cases import FORMS, Case
from xattnres_monai.benchmark.measure import Steps

__all__ = ["compiled_traffic"]

LOG = torch._logging.getArtifactLogger("torch._inductor.compile_fx", "inductor_metrics")


def compiled_traffic(
    case: Case, options: Mapping[str, Any] | None = None, device: str = "cpu", dtype: str = "float32"
) -> dict[str, dict[str, dict[str, int]]]:
    """Compile an inference and a training step (forward and backward), and count them.

    Args:
        case: network and input.
        options: of XAttnRes.
        device: that it is compiled for.
        dtype: of autocast: ``float32`` (none), ``bfloat16`` or ``float16``.

    Returns:
        ``kernels`` and ``bytes`` by form, then by ``inference`` and ``training``; of the forms that ``measure``
        compiles.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {}
    with _counting():
        for form in FORMS[:2]:
            counts[form] = {}
            for mode in ("inference", "training"):
                torch.compiler.reset()
                metrics.reset()
                network = case.build(form, options or {}).to(device)
                getattr(Steps(network, case.image(device), dtype, compiled=True), mode)()
                counts[form][mode] = {"kernels": metrics.generated_kernel_count, "bytes": metrics.num_bytes_accessed}
    return counts


@contextmanager
def _counting() -> Iterator[None]:
    """The compiler counts bytes only for its log, which is kept silent here, and nothing for code from its cache."""
    level = LOG.level
    LOG.setLevel(logging.INFO)
    LOG.addFilter(_nothing)
    try:
        with config.patch(force_disable_caches=True):
            yield
    finally:
        LOG.removeFilter(_nothing)
        LOG.setLevel(level)


def _nothing(_: logging.LogRecord) -> bool:
    return False
