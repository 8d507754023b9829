"""The command ``benchmark``: its table, its file of figures and its picture."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import monai
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from xattnres_monai.benchmark.cases import CASES, FORMS, Case
from xattnres_monai.benchmark.measure import measure
from xattnres_monai.benchmark.traffic import Traffic, traffic
from xattnres_monai.files import replace_text
from xattnres_monai.tables import markdown

__all__ = ["benchmark", "table"]

Results = dict[str, dict[str, dict[str, Any]]]
SIZES = {
    "UNet 3D (16…256), batch 1": [Case("unet", 3, size, 1, 16) for size in (32, 64, 96, 128)],
    "UNet 2D (32…512), batch 1": [Case("unet", 2, size, 1, 32) for size in (128, 256, 512, 1024)],
}
DEPTHS = {"UNet 3D, 64³, batch 1": [Case("unet", 3, 64, 1, 16, levels) for levels in (3, 4, 5, 6)]}


def benchmark(
    cases: str | Sequence[str] = tuple(CASES),
    repeats: int = 7,
    device: str = "cpu",
    dtype: str = "float32",
    compiled: bool = False,
    output: str = "benchmark.json",
    plot: bool = False,
    **options: Any,
) -> str:
    """Measure XAttnRes beside plain MONAI and the straightforward form.

    Args:
        cases: of swin_unetr_f48, swin_unetr_f24, unetr_f16, unet_3d, unet_2d_wide and unet_2d; by default all.
        repeats: number of turns, after one that is not counted.
        device: ``cpu`` or ``cuda``; ``meta`` counts, without one, what the networks ask of a GPU (``traffic.py``).
        dtype: of autocast: ``float32`` (none), ``bfloat16`` or ``float16``.
        compiled: compile the networks with ``torch.compile``; without the straightforward form.
        output: file for the figures, written after every case; cases that it holds already are not measured again.
        plot: also draw the cost against the size of the image and the depth of the network, into ``output`` as PNG.
        **options: of XAttnRes, e.g. ``--recompute``, ``--query spatial``.

    Returns:
        The table.

    Raises:
        ValueError: for an unknown case, for ``meta`` with ``plot`` or ``compiled``, or for a file with figures of
            another machine or setting.
    """
    names = (cases,) if isinstance(cases, str) else tuple(cases)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"got the cases {', '.join(unknown)}, expected some of {', '.join(CASES)}")
    if device == "meta":
        if plot or compiled:
            raise ValueError(
                "got device=meta with plot or compiled, expected neither: operators are counted, not timed"
            )
        return traffic_table({str(CASES[name]): traffic(CASES[name], options) for name in names})
    setting = {
        "machine": machine(device),
        "device": device,
        "dtype": dtype,
        "compiled": compiled,
        "repeats": repeats,
        "options": options,
    }
    wanted = [CASES[name] for name in names]
    if plot:
        wanted += [case for series in (SIZES | DEPTHS).values() for case in series]
    results = _measured(wanted, setting, Path(output))
    if plot:
        picture = Path(output).with_suffix(".png")
        draw(results).savefig(picture, dpi=110)
    lines = [
        f"{setting['machine']}, {date.today()}",
        "",
        table({str(CASES[name]): results[str(CASES[name])] for name in names}),
    ]
    return "\n".join([*lines, *(["", f"drawn in {picture}"] if plot else [])])


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """One row per case and form: ratios to plain MONAI, of times with their quartiles."""
    rows = [["", "form", "inference", "its floor", "training step", "peak memory", "FLOPs", "parameters"]]
    for name, forms in results.items():
        for form in [form for form in FORMS[1:] if form in forms]:
            inference, training = [
                "{1:.2f} ({0:.2f} … {2:.2f})".format(*forms[form][mode]) for mode in ("inference", "training")
            ]
            counts = [_number(forms[form][count]) for count in ("memory", "flops", "parameters")]
            floor = f"{forms[form]['floor']:.2f}" if "floor" in forms[form] else ""
            rows.append([name, form, inference, floor, training, *counts])
    return markdown(rows)


def traffic_table(results: Mapping[str, Mapping[str, Mapping[str, Traffic]]]) -> str:
    """One row per case and form: operators to launch, and bytes to read and write as ratios to plain MONAI's."""
    modes = ("inference", "training")
    rows = [["", "form", *(f"{mode}: {count}" for mode in modes for count in ("operators", "traffic"))]]
    for name, forms in results.items():
        for form, counts in forms.items():
            row = [name, form]
            for mode in modes:
                row += [str(counts[mode].operators), f"{counts[mode].bytes / forms['plain'][mode].bytes:.2f}"]
            rows.append(row)
    return markdown(rows)


def _number(ratio: float) -> str:
    return "–" if math.isnan(ratio) else f"{ratio:.3f}"


def _measured(cases: Sequence[Case], setting: Mapping[str, Any], output: Path) -> Results:
    """Figures of all cases, those in the file as they are."""
    stored = json.loads(output.read_text()) if output.exists() else {**setting, "results": {}}
    if {key: stored.get(key) for key in setting} != setting:
        raise ValueError(f"{output} holds figures of another machine or setting; give another file as --output")
    results: Results = stored["results"]
    for case in tqdm(cases, desc="benchmark", unit="case", disable=None):
        if str(case) not in results:
            results[str(case)] = measure(
                case, **{key: setting[key] for key in ("repeats", "device", "dtype", "compiled", "options")}
            )
            replace_text(output, json.dumps(stored, indent=2) + "\n")
    return results


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


def draw(results: Results) -> Figure:
    """Ratios of the times to plain MONAI's, against the size of the image and the number of levels."""
    figure = Figure(figsize=(12, 4), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (title, cases) in zip(panels, (SIZES | DEPTHS).items()):
        steps = [case.levels if title in DEPTHS else case.size for case in cases]
        for form, colour in zip(FORMS[1:], ("C0", "C3")):
            if form not in results[str(cases[0])]:
                continue
            for mode, style in (("inference", "-o"), ("training", "--s")):
                low, median, high = zip(*(results[str(case)][form][mode] for case in cases))
                panel.plot(steps, median, style, color=colour, label=f"{form}, {mode}")
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("levels of the network" if title in DEPTHS else "voxels a side")
        panel.set_xticks(steps)
    panels[0].set_ylabel("time over plain MONAI's")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
