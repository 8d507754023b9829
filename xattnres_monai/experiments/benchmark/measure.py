"""Measure time, FLOPs and memory of the three forms of a network, as ratios to plain MONAI.

Absolute times say little on a machine that also does other work. The forms therefore take turns in one process
(A B C A B C …), so that a disturbance affects all of them.
"""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xattnres_monai.experiments.benchmark.cases import FORMS, Case
from xattnres_monai.experiments.benchmark.compiled_traffic import compiler_counts, fresh_compiler

__all__ = ["measure", "peak_bytes", "reset_peak"]

MEGABYTE = 2**20
MODES = ("inference", "training")
STATUS = Path("/proc/self/status")  # exists on Linux only; elsewhere CPU memory is not measured


def measure(
    case: Case,
    repeats: int = 7,
    device: str = "cpu",
    dtype: str = "float32",
    compiled: bool = False,
    options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure time, FLOPs, parameters and memory of the three forms of a case.

    Args:
        case: network and input.
        repeats: number of timed rounds, after one warm-up round.
        device: device of the network.
        dtype: dtype of autocast: ``float32`` (no autocast), ``bfloat16`` or ``float16``.
        compiled: compile the networks with ``torch.compile``. The literal form is left out, because a compilation takes
            minutes. On a CPU, the memory of compiled networks is not measured.
        options: options of XAttnRes.

    Returns:
        A dictionary per form. ``inference`` and ``training`` are the quartiles of the ratio to the time of the plain
        network in the same round. ``memory``, ``flops`` and ``parameters`` are ratios to the plain network. The form
        ``plain`` has absolute values instead: seconds, MB (2²⁰ bytes) and counts. Memory is the peak of two training
        steps above the memory in use before the network was built. It is that of the CUDA allocator, or on a CPU the
        resident memory of a separate process. With ``compiled``, the entry ``compiled`` holds ``kernels`` and ``bytes``
        as the compiler counts them, for each mode.
    """
    with fresh_compiler() if compiled else nullcontext():
        return _measure(case, repeats, device, dtype, compiled, options or {})


def _measure(
    case: Case, repeats: int, device: str, dtype: str, compiled: bool, options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    forms = FORMS[:2] if compiled else FORMS
    networks = {form: case.build(form, options).to(device) for form in forms}
    # count before the networks are compiled: the counter would make the compiler compile them once more
    counts = {form: {"flops": _flops(network, case.image(device))} for form, network in networks.items()}
    for form, network in networks.items():
        counts[form]["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    steps = {form: _Steps(network, case.image(device), dtype, compiled) for form, network in networks.items()}
    first = {form: {mode: _first(steps[form], mode, device) for mode in MODES} for form in forms}
    seconds: dict[str, dict[str, list[float]]] = {form: {mode: [] for mode in MODES} for form in forms}
    for _, mode, form in itertools.product(range(repeats), MODES, forms):
        seconds[form][mode].append(_seconds(getattr(steps[form], mode), device))
    del networks, steps
    for form in forms:
        counts[form]["memory"] = _peak_megabytes(case, form, device, dtype, compiled, options)
    results: dict[str, dict[str, Any]] = {
        "plain": {**{mode: float(np.median(times)) for mode, times in seconds["plain"].items()}, **counts["plain"]}
    }
    for form in forms[1:]:
        ratios = {mode: np.divide(times, seconds["plain"][mode]) for mode, times in seconds[form].items()}
        results[form] = {
            **{mode: np.percentile(ratio, (25, 50, 75)).round(4).tolist() for mode, ratio in ratios.items()},
            **{name: round(count / counts["plain"][name], 4) for name, count in counts[form].items()},
        }
    for form in forms if compiled else ():
        results[form]["compiled"] = first[form]
    return results


def _first(steps: _Steps, mode: str, device: str) -> dict[str, int]:
    """Run the warm-up step, in which a network is compiled, and return what the compiler counts."""
    with compiler_counts() as counts:
        _seconds(getattr(steps, mode), device)
    return counts


def _flops(network: nn.Module, image: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    return float(counter.get_total_flops())


class _Steps:
    """Single steps of inference and training of a network on one batch."""

    def __init__(self, network: nn.Module, image: torch.Tensor, dtype: str, compiled: bool) -> None:
        self.network, self.image = network, image
        if compiled:
            network.compile(dynamic=False)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
        self.autocast = torch.autocast(image.device.type, getattr(torch, dtype), enabled=dtype != "float32")

    def inference(self) -> None:
        self.network.eval()
        with torch.no_grad(), self.autocast:
            self.network(self.image)

    def training(self) -> None:
        self.network.train()
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.network(self.image).float().square().mean()
        loss.backward()
        self.optimizer.step()


def _seconds(step: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _peak_megabytes(
    case: Case, form: str, device: str, dtype: str, compiled: bool, options: Mapping[str, Any]
) -> float:
    if compiled and device == "cpu":
        return math.nan  # the process's memory would include the compiler's own
    if device != "cpu":
        gc.collect()
        return _peak_of_this_process(case, form, device, dtype, compiled, dict(options))
    # the peak of a process's resident memory never falls, so each form gets its own process
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(_peak_of_this_process, case, form, device, dtype, compiled, dict(options)).result()


def _peak_of_this_process(
    case: Case, form: str, device: str, dtype: str, compiled: bool, options: dict[str, Any]
) -> float:
    reset_peak(device)
    before = peak_bytes(device)
    steps = _Steps(case.build(form, options).to(device), case.image(device), dtype, compiled)
    for _ in range(2):  # the first step allocates the optimizer's state
        steps.training()
    return (peak_bytes(device) - before) / MEGABYTE


def reset_peak(device: str) -> None:
    """Reset the peak that ``peak_bytes`` reads."""
    if device != "cpu":
        torch.cuda.init()  # otherwise a process that has not used the GPU yet has no allocator to reset
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        (STATUS.parent / "clear_refs").write_text("5")


def peak_bytes(device: str) -> float:
    """Return the peak of the CUDA allocator, or on a CPU of this process's resident memory (NaN outside Linux)."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    if not STATUS.exists():
        return math.nan
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])
