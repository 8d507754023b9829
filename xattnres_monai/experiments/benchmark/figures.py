"""The file of a benchmark's figures, which a benchmark that was broken off goes on from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import torch

from xattnres_monai.experiments.benchmark.cases import Case
from xattnres_monai.experiments.benchmark.measure import measure
from xattnres_monai.experiments.benchmark.traffic import traffic
from xattnres_monai.utils.atomic_write import replace_text

__all__ = ["Figures", "counted", "machine"]


class Figures:
    """Times and counts of cases, in a JSON file that is written after every one of them.

    Args:
        path: of the file; made, or gone on from.
        repeats: number of turns, after one that is not counted.
        device: of the networks.
        dtype: of autocast: ``float32`` (none), ``bfloat16`` or ``float16``.
        compiled: whether the networks are compiled.
        options: of XAttnRes.

    Attributes:
        stored: what the file holds: the settings, and by the case's name ``results`` (of ``measure``) and ``operators``
            (counts in eager mode).

    Raises:
        ValueError: for a file with figures of another machine or setting.
    """

    def __init__(
        self, path: Path, repeats: int, device: str, dtype: str, compiled: bool, options: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.setting: dict[str, Any] = {
            "repeats": repeats,
            "device": device,
            "dtype": dtype,
            "compiled": compiled,
            "options": options,
        }
        setting: dict[str, Any] = {"machine": machine(device), **self.setting}
        self.stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else dict(setting)
        if {key: self.stored.get(key) for key in setting} != setting:
            raise ValueError(f"{path} holds figures of another machine or setting; give another file as --output")
        for part in ("results", "operators"):
            self.stored.setdefault(part, {})

    def measure(self, case: Case) -> None:
        """Time a case, unless the file holds it."""
        if str(case) not in self.stored["results"]:
            self.stored["results"][str(case)] = measure(case, **self.setting)
            self._write()

    def count(self, case: Case) -> None:
        """Count a case, unless the file holds it."""
        if str(case) not in self.stored["operators"]:
            self.stored["operators"][str(case)] = counted(case, self.setting["options"])
            self._write()

    def _write(self) -> None:
        replace_text(self.path, json.dumps(self.stored, indent=2) + "\n")


def counted(case: Case, options: Mapping[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Operators and bytes of a case in eager mode, as the file holds them."""
    return {
        form: {mode: {"operators": count.operators, "bytes": count.bytes} for mode, count in modes.items()}
        for form, modes in traffic(case, options).items()
    }


def machine(device: str) -> str:
    """What the figures were measured on and with."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else _processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, MONAI {monai.__version__}"
    return f"{name}, {torch.get_num_threads()} threads, {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
