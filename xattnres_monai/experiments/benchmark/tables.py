"""Format the results of a benchmark as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xattnres_monai.experiments.benchmark.cases import FORMS
from xattnres_monai.utils.tables import markdown

__all__ = ["counts_table", "report", "times_table"]

EAGER = "Operators to launch, and memory traffic as a ratio to plain MONAI; counted in eager mode and float32:"
COMPILED = "Kernels that the compiler generated, and memory traffic as a ratio to plain MONAI; counted by the compiler:"


def report(figures: Mapping[str, Any], cases: Sequence[str]) -> str:
    """Return all tables of a benchmark.

    Args:
        figures: content of the benchmark's file.
        cases: names of the cases to show. A table leaves out cases that the file has no results for.

    Returns:
        The machine and the times, followed by the counts, in Markdown.
    """
    results, operators = (
        {name: figures[part][name] for name in cases if name in figures[part]} for part in ("results", "operators")
    )
    mode = f"{figures['dtype']}, {'compiled' if figures['compiled'] else 'eager'}"
    parts = [f"{figures['machine']}, {mode}", times_table(results)]
    if operators:
        parts += [EAGER, counts_table(operators, "operators")]
    if figures["compiled"]:
        kernels = {name: {form: row["compiled"] for form, row in forms.items()} for name, forms in results.items()}
        parts += [COMPILED, counts_table(kernels, "kernels")]
    return "\n\n".join(parts)


def times_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return a table with one row per case and form: values of plain MONAI, and ratios to them with quartiles."""
    rows = [["", "form", "inference", "training step", "peak memory", "FLOPs", "parameters"]]
    for name, forms in results.items():
        rows.append([name, *_plain(forms["plain"])])
        for form in [form for form in FORMS[1:] if form in forms]:
            inference, training = [
                "{1:.2f} ({0:.2f} … {2:.2f})".format(*forms[form][mode]) for mode in ("inference", "training")
            ]
            counts = [_number(forms[form][count]) for count in ("memory", "flops", "parameters")]
            rows.append([name, form, inference, training, *counts])
    return markdown(rows)


def counts_table(counts: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]], unit: str) -> str:
    """Return a table of counts with one row per case and form.

    Args:
        counts: the counts, by case, form, and ``inference`` or ``training``.
        unit: the count to show besides memory traffic: ``operators`` or ``kernels``.
    """
    modes = ("inference", "training")
    rows = [["", "form", *(f"{mode}: {count}" for mode in modes for count in (unit, "traffic"))]]
    for name, forms in counts.items():
        for form, count in forms.items():
            row = [name, form]
            for mode in modes:
                row += [str(count[mode][unit]), f"{count[mode]['bytes'] / forms['plain'][mode]['bytes']:.2f}"]
            rows.append(row)
    return markdown(rows)


def _plain(values: Mapping[str, Any]) -> list[str]:
    inference, training = (f"{1000 * values[mode]:.4g} ms" for mode in ("inference", "training"))
    memory = "–" if math.isnan(values["memory"]) else f"{values['memory']:.0f} MB"
    return ["plain", inference, training, memory, f"{values['flops'] / 1e9:.4g} G", f"{values['parameters']:,}"]


def _number(ratio: float) -> str:
    return "–" if math.isnan(ratio) else f"{ratio:.3f}"
