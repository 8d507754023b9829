"""What the aggregation may cost, counted, not timed: operations, parameters, arrays made and resamplings."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from xattnres_monai import attention, blockwise, history
from xattnres_monai.attention import CrossStageAttention
from xattnres_monai.benchmark.cases import CASES, FORMS, Case
from xattnres_monai.benchmark.traffic import traffic

SMALL = Case("unet", 3, 48, 1, 8, levels=4)
# in one go, or along an axis: by blocks along two, as the third is done within them
INTERPOLATION = {"aten.upsample_trilinear3d.default": 1, "aten.upsample_linear1d.default": 0.5}


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
    "swin_unetr_f48": (1.03, 1.05, 1.16, 1.22),
    "swin_unetr_f24": (1.03, 1.05, 1.10, 1.15),
    "unetr_f16": (1.03, 1.05, 1.41, 1.41),
    "unet_3d": (1.03, 1.05, 2.05, 2.6),
    "unet_2d_wide": (1.10, 1.10, 3.0, 4.0),
    "unet_2d": (1.10, 1.10, 2.7, 3.6),
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
def test_memory_traffic_on_a_gpu(case):
    """Less than that of the straightforward form, too."""
    counts = traffic(CASES[case])
    for mode, most in zip(("inference", "training"), MOST[case][2:]):
        plain, ours, straightforward = (counts[form][mode].bytes for form in FORMS)
        assert 1 < ours / plain <= most and ours < straightforward


@pytest.fixture(params=[True, False], ids=["blocks", "functional"])
def recorded(request, monkeypatch):
    """Arrays that the aggregations of a small network make, and the stages that aggregate."""
    monkeypatch.setattr(attention, "runs_blockwise", lambda current: request.param)
    monkeypatch.setattr(blockwise, "BLOCK", 1)  # one slab a block, as in a volume that is too large for more
    blockwise._workspace.memory.clear()
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
    """No array of (B, N, C, …): none is larger than the largest aligned source, with its two slabs of margin."""
    made, sizes = recorded
    largest = max(shape.numel() for shape in sizes)
    assert max(shape.numel() for _, shape in made) <= largest * (1 + 2 / min(sizes[-1][2:]))


def test_every_source_is_pooled_to_a_level_once(monkeypatch):
    pooled = []
    original = history._average_pool
    monkeypatch.setattr(history, "_average_pool", lambda *args: pooled.append(args[1]) or original(*args))
    with torch.no_grad():
        SMALL.build("xattnres", {})(SMALL.image("cpu"))
    # stages on 24³, 12³, 6³ (and the bottleneck on 6³): the first is pooled to 12³ and 6³, the second to 6³
    assert sorted(math.prod(size) for size in pooled) == [6**3, 6**3, 12**3]


def test_every_coarse_source_is_interpolated_once_for_a_stage(recorded):
    made, sizes = recorded
    # decoder2 … decoder0 of seven stages, on 6³, 12³ and 24³: none, two and four of their sources are coarser
    assert sum(INTERPOLATION.get(operator, 0) for operator, _ in made) == 6
    assert len(sizes) == 5
