from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tests.reference import cross_stage_attention
from xattnres_monai import (
    CrossStageAttention,
    FeatureHistory,
    Stage,
    attention,
    blockwise,
    cross_stage_attentions,
)
from xattnres_monai.blockwise import runs_blockwise

# widths and sizes of the stage outputs, the current feature last
CASES = {
    "two sources": ([4, 6], [(8, 8), (4, 4)]),
    "encoder": ([3, 5, 7], [(16, 12), (8, 6), (4, 3)]),
    "decoder": ([4, 8, 16, 8], [(16, 16), (8, 8), (4, 4), (8, 8)]),
    "odd sizes": ([4, 8, 6, 5], [(15, 13), (8, 7), (4, 4), (8, 7)]),
    "narrow": ([1, 2, 2], [(6, 6), (3, 3), (6, 6)]),
    "finer along one axis, coarser along the other": ([4, 3], [(16, 4), (8, 8)]),
    "one voxel": ([4, 8, 3], [(5, 5), (1, 1), (1, 1)]),
    "volume": ([4, 8, 16, 8], [(12, 8, 16), (6, 4, 8), (3, 2, 4), (6, 4, 8)]),
    "odd volume": ([3, 6, 5], [(7, 9, 5), (4, 5, 3), (7, 9, 5)]),
    "anisotropic volume": ([4, 8, 4], [(4, 16, 16), (4, 8, 8), (2, 4, 4)]),
    "deep": ([2, 3, 4, 5, 6, 5, 4, 3], [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (4, 4), (8, 8), (16, 16)]),
}
OPTIONS = [
    {"query": query, "fusion": fusion, "recompute": recompute}
    for query, fusion, recompute in itertools.product(("static", "spatial"), ("replace", "residual"), (False, True))
]


def _build(widths, sizes, options, batch=2, dtype=torch.float32):
    """Stage outputs and a module with random parameters: zero ones would hide half of the formula."""
    torch.manual_seed(0)
    module = CrossStageAttention(len(sizes[0]), widths[-1], widths[:-1], options).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    outputs = [torch.randn(batch, width, *size, dtype=dtype, requires_grad=True) for width, size in zip(widths, sizes)]
    return module, outputs


def _attend(module, outputs):
    history = FeatureHistory()
    for output in outputs:
        history.append(output)
    return module(outputs[-1], history)


def _results(function, module, outputs):
    """Output, and gradients of a fixed linear functional of it by inputs and parameters."""
    result = function(module, outputs)
    direction = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=result.dtype)
    return [result, *torch.autograd.grad(result, [*outputs, *module.parameters()], direction)]


@pytest.fixture(params=["functional", "one block", "many blocks"])
def form(request, monkeypatch):
    """The two ways of computing, the second with the whole volume in one block and in as many as there can be."""
    monkeypatch.setattr(attention, "runs_blockwise", lambda current: request.param != "functional")
    monkeypatch.setattr(blockwise, "BLOCK", 1 if request.param == "many blocks" else blockwise.BLOCK)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("widths, sizes", CASES.values(), ids=CASES.keys())
def test_equals_the_straightforward_form_forward_and_backward(widths, sizes, batch, options):
    module, outputs = _build(widths, sizes, options, batch)
    expected = _results(cross_stage_attention, module, outputs)
    for got, wanted in zip(_results(_attend, module, outputs), expected, strict=True):
        # gradients of parameters are sums over all voxels: the bound is relative to the largest entry
        bound = 1e-5 * max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(got, wanted, atol=bound, rtol=0)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("options", OPTIONS[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_gradcheck(options):
    module, outputs = _build([2, 3, 2], [(5, 4), (3, 2), (5, 4)], options, batch=1, dtype=torch.float64)
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda *tensors: _attend(module, list(tensors[:3])), (*outputs, *parameters))


def test_a_new_stage_weights_its_sources_equally():
    _, outputs = _build(*CASES["decoder"], {})
    module = CrossStageAttention(2, 8, [4, 8, 16])
    history = FeatureHistory()
    for output in outputs:
        history.append(output)
    torch.testing.assert_close(module.weights(outputs[-1], history), torch.full((2, 4, 8, 8), 0.25))


def test_a_new_residual_stage_hands_the_current_feature_on_bit_for_bit():
    _, outputs = _build(*CASES["decoder"], {})
    assert torch.equal(_attend(CrossStageAttention(2, 8, [4, 8, 16], {"fusion": "residual"}), outputs), outputs[-1])


def _kept(monkeypatch, blocks: bool, recompute: bool) -> int:
    """Numbers that autograd keeps for the backward pass."""
    monkeypatch.setattr(attention, "runs_blockwise", lambda current: blocks)
    module, outputs = _build(*CASES["deep"], {"recompute": recompute})
    shapes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
        _attend(module, outputs)
    return sum(shape.numel() for shape in shapes)


def test_aligned_sources_are_not_kept_with_recompute_nor_in_blocks(monkeypatch):
    kept = _kept(monkeypatch, blocks=False, recompute=False)
    assert _kept(monkeypatch, blocks=False, recompute=True) < kept / 2
    assert _kept(monkeypatch, blocks=True, recompute=False) < kept / 2


def test_training_after_an_inference_in_the_same_memory():
    module, outputs = _build(*CASES["deep"], {})
    expected = _results(_attend, module, outputs)
    blockwise._workspace.memory.clear()
    with torch.inference_mode():
        torch.testing.assert_close(_attend(module, outputs), expected[0])
    assert all(torch.equal(*pair) for pair in zip(_results(_attend, module, outputs), expected))


def test_blocks_are_for_eager_mode_in_full_precision_on_a_cpu():
    current = torch.rand(1, 2, 4, 4)
    assert runs_blockwise(current) and runs_blockwise(current.double())
    assert not runs_blockwise(current.bfloat16()) and not runs_blockwise(current.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not runs_blockwise(current)


def test_a_projection_that_is_no_longer_plain_is_called():
    """By blocks, which take its weight, a pruned one would be trained on the same graph twice."""
    module, outputs = _build(*CASES["two sources"], {})
    called = []
    hook = module.aligners[0].register_forward_hook(lambda *_: called.append(1))
    expected = _attend(module, outputs)
    assert called == [1]
    hook.remove()
    prune.l1_unstructured(module.aligners[0].projection, "weight", amount=0.5)
    for _ in range(2):
        result = _attend(module, outputs)
        result.sum().backward()
    assert not torch.allclose(result, expected)


class Adapter(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


def _watched(projection):
    projection.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 0,))
    return projection


@pytest.mark.parametrize(
    "replaced",
    [lambda projection: Adapter(4, 6, 1), lambda projection: nn.Conv2d(4, 6, 1), _watched],
    ids=["adapter", "bias", "backward hook"],
)
def test_a_projection_that_was_replaced_is_called(monkeypatch, replaced):
    module, outputs = _build(*CASES["two sources"], {})
    module.aligners[0].projection = replaced(module.aligners[0].projection)
    called = _results(_attend, module, outputs)
    monkeypatch.setattr(attention, "runs_blockwise", lambda current: False)
    assert all(torch.equal(*pair) for pair in zip(called, _results(_attend, module, outputs), strict=True))


def test_a_batch_of_none():
    module, outputs = _build(*CASES["encoder"], {}, batch=0)
    assert _attend(module, outputs).shape == (0, 7, 4, 3)


def test_the_result_is_of_the_type_of_the_current_feature():
    module, outputs = _build(*CASES["encoder"], {})
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert _attend(module, [*outputs[:-1], outputs[-1].to(dtype)]).dtype == dtype


def test_stages_that_do_not_fit_are_refused_in_one_line():
    module, outputs = _build(*CASES["encoder"], {})
    with pytest.raises(ValueError, match=r"^got sources of \[3, 6\] channels, expected \[3, 5\]; mend the widths"):
        _attend(module, [outputs[0], torch.rand(2, 6, 8, 6), outputs[2]])
    with pytest.raises(ValueError, match=r"^got 1 sources, expected 2, one for each width"):
        CrossStageAttention(2, 8, [4, 4], sources=[0])
    with pytest.raises(ValueError, match=r"^got the stages a, b, a, expected names that differ"):
        cross_stage_attentions(2, [Stage(name, 4, "encoder") for name in "aba"])
    with pytest.raises(ValueError, match=r"^got the part decode of a stage, expected encoder or decoder"):
        cross_stage_attentions(2, [Stage("a", 4, "decode")])


def test_a_history_without_the_current_feature_is_refused():
    module = CrossStageAttention(2, 8, [4, 8])
    with pytest.raises(ValueError, match=r"history of 0 stage outputs, expected at least 3.*append"):
        module(torch.rand(1, 8, 4, 4), FeatureHistory())


def test_without_sources_the_current_feature_is_all_there_is():
    history, current = FeatureHistory(), torch.rand(1, 4, 8, 8)
    history.append(current)
    torch.testing.assert_close(CrossStageAttention(2, 4, [])(current, history), current)
