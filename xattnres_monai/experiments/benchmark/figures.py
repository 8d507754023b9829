"""The results file of a benchmark, from which an interrupted benchmark resumes."""

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
    """Times and counts of cases, kept in a JSON file that is updated after every case.

    Args:
        path: the JSON file. If it exists, its results are kept and extended.
        repeats: number of timed rounds, after one warm-up round.
        device: device of the networks.
        dtype: dtype of autocast: ``float32`` (no autocast), ``bfloat16`` or ``float16``.
        compiled: whether the networks are compiled.
        options: options of XAttnRes.

    Attributes:
        stored: the content of the file: the settings, and by the name of the case ``results`` (the output of
            ``measure``) and ``operators`` (counts in eager mode).

    Raises:
        ValueError: for a file with results of another machine or setting.
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
            raise ValueError(f"{path} holds results of another machine or setting; give another file as --output")
        for part in ("results", "operators"):
            self.stored.setdefault(part, {})

    def measure(self, case: Case) -> None:
        """Time a case, unless the file already holds its times."""
        if str(case) not in self.stored["results"]:
            self.stored["results"][str(case)] = measure(case, **self.setting)
            self._write()

    def count(self, case: Case) -> None:
        """Count operators and traffic of a case, unless the file already holds them."""
        if str(case) not in self.stored["operators"]:
            self.stored["operators"][str(case)] = counted(case, self.setting["options"])
            self._write()

    def _write(self) -> None:
        replace_text(self.path, json.dumps(self.stored, indent=2) + "\n")


def counted(case: Case, options: Mapping[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Count operators and bytes of a case in eager mode, in the form of the file."""
    return {
        form: {mode: {"operators": count.operators, "bytes": count.bytes} for mode, count in modes.items()}
        for form, modes in traffic(case, options).items()
    }


def machine(device: str) -> str:
    """Return the processor or GPU, the number of threads and the versions of the software."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else _processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, MONAI {monai.__version__}"
    return f"{name}, {torch.get_num_threads()} threads, {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
