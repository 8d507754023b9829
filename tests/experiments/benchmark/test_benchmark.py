from __future__ import annotations

import json
import math
import re

import pytest
import torch

from xattnres_monai.experiments.benchmark import command, figures
from xattnres_monai.experiments.benchmark.cases import CASES, FORMS, Case
from xattnres_monai.experiments.benchmark.command import benchmark, draw
from xattnres_monai.experiments.benchmark.measure import measure

TINY = Case("unet", 2, 32, 1, 4, levels=3)


@pytest.fixture
def tiny(monkeypatch):
    """The command, with small cases of the same names."""
    monkeypatch.setattr(command, "CASES", {name: Case("unet", 2, 32, 1, 4, 3) for name in CASES} | {"unet_2d": TINY})


def test_the_forms_are_timed_counted_and_weighed():
    results = measure(TINY, repeats=2)
    assert list(results) == list(FORMS)
    assert results["plain"]["parameters"] < 1e6 and results["plain"]["inference"] > 0
    for form in FORMS[1:]:
        low, median, high = results[form]["training"]
        assert 0 < low <= median <= high
        assert results[form]["parameters"] > 1 and results[form]["flops"] > 1
        assert results[form]["memory"] > 0 or math.isnan(results[form]["memory"])
    assert results["literal"]["flops"] > results["xattnres"]["flops"]


@pytest.mark.slow
def test_compiled_networks_are_compared_without_the_literal_form(tiny, tmp_path):
    output = tmp_path / "figures.json"
    text = benchmark("unet_2d", repeats=1, compiled=True, output=str(output))
    assert text.split("Kernels")[1].count(f"| {TINY} | ") == 2
    results = json.loads(output.read_text())["results"][str(TINY)]
    assert list(results) == ["plain", "xattnres"]
    assert results["xattnres"]["inference"][1] > 0 and math.isnan(results["xattnres"]["memory"])
    for mode in ("inference", "training"):
        plain, ours = (results[form]["compiled"][mode] for form in ("plain", "xattnres"))
        assert 0 < plain["kernels"] < ours["kernels"] and 0 < plain["bytes"] < ours["bytes"]


def test_the_command_prints_tables_and_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    output = tmp_path / "figures.json"
    text = benchmark("unet_2d", repeats=1, output=str(output))
    times, counts = text.split("Operators to launch")
    for table in (times, counts):
        assert f"| {TINY} | xattnres " in table and f"| {TINY} | literal " in table
    assert torch.__version__ in times and "float32, eager" in times and "Kernels" not in text
    assert re.search(rf"\| {re.escape(str(TINY))} \| plain +\| [\d.]+ ms +\| [\d.]+ ms +\| ", times)
    stored = json.loads(output.read_text())
    assert stored["results"][str(TINY)]["xattnres"]["parameters"] > 1
    assert stored["operators"][str(TINY)]["plain"]["training"]["operators"] > 0

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(figures, "measure", refuse)
    monkeypatch.setattr(figures, "traffic", refuse)
    assert benchmark("unet_2d", repeats=1, output=str(output)) == text
    with pytest.raises(ValueError, match="holds results of another machine or setting; give another file as --output"):
        benchmark("unet_2d", repeats=2, output=str(output))


def test_an_unknown_case():
    with pytest.raises(ValueError, match=r"got the cases vnet, expected some of swin_unetr_f48, "):
        benchmark(["unet_2d", "vnet"])


def test_the_plot_has_a_curve_for_every_form_and_mode():
    form = {"inference": [1, 1.1, 1.2], "training": [1.1, 1.2, 1.3]}
    results = {
        str(case): {"plain": {}, "xattnres": form, "literal": form}
        for series in (command.SIZES | command.DEPTHS).values()
        for case in series
    }
    panels = draw(results).axes
    assert len(panels) == 3 and all(len(panel.get_lines()) == 5 for panel in panels)
