"""What the aggregation may cost, counted, not timed: operations, parameters, arrays made and resamplings."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from xattnres_monai.attention import history
from xattnres_monai.attention.cross_stage import CrossStageAttention
from xattnres_monai.experiments.benchmark.cases import CASES, FORMS, Case
from xattnres_monai.experiments.benchmark.traffic import traffic

SMALL = Case("unet", 3, 48, 1, 8, levels=4)


class Recorder(TorchDispatchMode):
    """Operators that ran, with the sizes of the arrays that they made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view and "out" not in (kwargs or {}):
            self.made.append((str(func), result.shape))
        return result


# at most, as ratios to plain MONAI: FLOPs of an inference, parameters, memory traffic of an inference and of a
# training step
MOST = {
    "swin_unetr_f48": (1.03, 1.05, 1.06, 1.09),
    "swin_unetr_f24": (1.03, 1.05, 1.04, 1.06),
    "unetr_f16": (1.03, 1.05, 1.12, 1.14),
    "unet_3d": (1.03, 1.05, 1.35, 1.55),
    "unet_2d_wide": (1.10, 1.10, 1.75, 2.3),
    "unet_2d": (1.10, 1.10, 1.65, 2.1),
}


@pytest.mark.parametrize("case", MOST)
def test_operations_and_parameters(case):
    """At the sizes of the benchmark, without computing: on the meta device."""
    counts = []
    for form in ("plain", "xattnres"):
        network = CASES[case].build(form, {}).eval().to("meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(CASES[case].image("meta"))
        counts.append((counter.get_total_flops(), sum(parameter.numel() for parameter in network.parameters())))
    (plain_flops, plain_parameters), (our_flops, our_parameters) = counts
    assert 1 < our_flops / plain_flops <= MOST[case][0]
    assert 1 < our_parameters / plain_parameters <= MOST[case][1]


@pytest.mark.parametrize("case", MOST)
def test_memory_traffic_and_operators(case):
    """Less than those of the paper's equation written down, too."""
    counts = traffic(CASES[case])
    for mode, most in zip(("inference", "training"), MOST[case][2:]):
        plain, ours, literal = (counts[form][mode] for form in FORMS)
        assert 1 < ours.bytes / plain.bytes <= most and ours.bytes < literal.bytes
        assert ours.operators < literal.operators


@pytest.fixture
def recorded():
    """Arrays that the aggregations of a small network make, and the shapes of the inputs of its stages."""
    network = SMALL.build("xattnres", {}).eval()
    made: list[tuple[str, torch.Size]] = []
    sizes = []

    def watch(module, inputs):
        recorder = Recorder()
        module.recorder = recorder
        recorder.__enter__()

    def stop(module, inputs, output):
        module.recorder.__exit__(None, None, None)
        made.extend(module.recorder.made)
        sizes.append(output.shape)

    for module in network.modules():
        if isinstance(module, CrossStageAttention):
            module.register_forward_pre_hook(watch)
            module.register_forward_hook(stop)
    with torch.no_grad():
        network(SMALL.image("cpu"))
    return made, sizes


def test_sources_are_never_stacked(recorded):
    """No array of (B, N, C, …): none is larger than a projected source, with the channel of its score."""
    made, sizes = recorded
    largest = max(shape.numel() for shape in sizes)
    assert max(shape.numel() for _, shape in made) <= largest * (1 + 1 / SMALL.width)


def test_every_source_is_pooled_to_a_level_once(monkeypatch):
    pooled = []
    original = history._average_pool
    monkeypatch.setattr(history, "_average_pool", lambda *args: pooled.append(args[1]) or original(*args))
    with torch.no_grad():
        SMALL.build("xattnres", {})(SMALL.image("cpu"))
    # stages on 24³, 12³, 6³ (and the bottleneck on 6³): the first is pooled to 12³ and 6³, the second to 6³
    assert sorted(math.prod(size) for size in pooled) == [6**3, 6**3, 12**3]


def test_one_pair_is_interpolated_from_grid_to_grid(recorded):
    made, sizes = recorded
    assert len(sizes) == 5
    # of the stages, decoder1 on 12³ has one coarser grid, and decoder0 on 24³ two: a value and a logit from each
    assert sum(operator == "aten.upsample_trilinear3d.default" for operator, _ in made) == 2 * (1 + 2)
