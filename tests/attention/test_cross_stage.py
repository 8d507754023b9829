from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tests.attention.reference import cross_stage_attention
from xattnres_monai import (
    CrossStageAttention,
    FeatureHistory,
    Stage,
    XAttnResOptions,
    cross_stage_attentions,
    nested_attention,
)
from xattnres_monai.attention.literal import LiteralAttention

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
CHOICES = {
    "form": ("nested", "literal"),
    "query": ("static", "spatial"),
    "fusion": ("replace", "residual"),
    "recompute": (False, True),
}
OPTIONS = [dict(zip(CHOICES, chosen)) for chosen in itertools.product(*CHOICES.values())]


def build(channels, source_channels, options, spatial_dims=2, sources=None):
    kind = LiteralAttention if XAttnResOptions.of(options).form == "literal" else CrossStageAttention
    return kind(spatial_dims, channels, source_channels, options, sources)


def _build(widths, sizes, options, batch=2, dtype=torch.float32):
    """Stage outputs and a module with random parameters: zero ones would hide half of the formula."""
    torch.manual_seed(0)
    module = build(widths[-1], widths[:-1], options, len(sizes[0])).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    outputs = [torch.randn(batch, width, *size, dtype=dtype, requires_grad=True) for width, size in zip(widths, sizes)]
    return module, outputs


def _history(outputs):
    history = FeatureHistory()
    for output in outputs:
        history.append(output)
    return history


def _attend(module, outputs):
    return module(outputs[-1], _history(outputs))


def _results(function, module, outputs):
    """Output, and gradients of a fixed linear functional of it by inputs and parameters."""
    result = function(module, outputs)
    direction = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=result.dtype)
    return [result, *torch.autograd.grad(result, [*outputs, *module.parameters()], direction)]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("widths, sizes", CASES.values(), ids=CASES.keys())
def test_equals_the_naive_reference_forward_and_backward(widths, sizes, batch, options):
    module, outputs = _build(widths, sizes, options, batch)
    expected = _results(cross_stage_attention, module, outputs)
    for got, wanted in zip(_results(_attend, module, outputs), expected, strict=True):
        # gradients of parameters are sums over all voxels: the bound is relative to the largest entry
        bound = 1e-5 * max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(got, wanted, atol=bound, rtol=0)


@pytest.mark.parametrize("options", OPTIONS[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_gradcheck(options):
    module, outputs = _build([2, 3, 2], [(5, 4), (3, 2), (5, 4)], options, batch=1, dtype=torch.float64)
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda *tensors: _attend(module, list(tensors[:3])), (*outputs, *parameters))


@pytest.mark.parametrize("form", CHOICES["form"])
def test_a_new_stage_weights_its_sources_equally(form):
    _, outputs = _build(*CASES["decoder"], {})
    module = build(8, [4, 8, 16], {"form": form})
    weights = module.weights(outputs[-1], _history(outputs))
    torch.testing.assert_close(weights, torch.full((2, 4, 8, 8), 0.25))


@pytest.mark.parametrize("form", CHOICES["form"])
def test_a_new_residual_stage_hands_the_current_feature_on_bit_for_bit(form):
    _, outputs = _build(*CASES["decoder"], {})
    module = build(8, [4, 8, 16], {"form": form, "fusion": "residual"})
    assert torch.equal(_attend(module, outputs), outputs[-1])


@pytest.mark.parametrize("options", OPTIONS[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_weights_are_the_shares_of_the_sources_in_the_result(options):
    """For values that are constant over a source's grid, which interpolation leaves as they are."""
    module, outputs = _build(*CASES["decoder"], {**options, "fusion": "replace"})
    weights = module.weights(outputs[-1], _history(outputs))
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    constant = [output.mean(dim=(2, 3), keepdim=True).expand_as(output) for output in outputs]
    weights = module.weights(constant[-1], _history(constant))
    if options["form"] == "nested":
        values = [*module._projected(constant[-1], module._drawn(constant[-1], _history(constant))[0])[0]]
    else:
        values = module._aligned(constant[-1], module._sources(constant[-1], _history(constant)))
    expected = sum(weights[:, k : k + 1] * value[:, :, :1, :1] for k, value in enumerate(values))
    torch.testing.assert_close(_attend(module, constant), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_a_source_that_is_left_out_weighs_nothing(options):
    module, outputs = _build(*CASES["decoder"], options)
    history = _history(outputs)
    for source in range(3):
        kept = [k for k in range(4) if k != source]
        fewer = build(8, [(4, 8, 16)[k] for k in kept[:-1]], options, sources=kept[:-1])
        fewer.load_state_dict(
            {
                name.replace(f"projections.{before}.", f"projections.{after}."): tensor
                for after, before in enumerate(kept[:-1])
                for name, tensor in module.state_dict().items()
                if name.startswith(f"projections.{before}.") or not name.startswith("projections.")
            }
        )
        torch.testing.assert_close(module.without(outputs[-1], history, source), fewer(outputs[-1], history))
    assert torch.isfinite(module.without(outputs[-1], history, 3)).all()


def test_constant_fields_take_one_flat_softmax():
    """Where nothing changes from place to place, it does not matter on which grid a source is weighed."""
    module, outputs = _build(*CASES["deep"], {})
    outputs = [output.mean(dim=(2, 3), keepdim=True).expand_as(output) for output in outputs]
    values, scores = module._projected(outputs[-1], outputs[:-1])
    logits = [
        score[:, 0, 0, 0] / output[:, :, 0, 0].square().mean(1).add(1e-6).sqrt()
        for score, output in zip(scores, outputs)
    ]
    weights = torch.stack(logits, dim=1).softmax(1)
    expected = torch.einsum("bn,bnc->bc", weights, torch.stack([value[:, :, 0, 0] for value in values], dim=1))
    got = _attend(module, outputs)
    torch.testing.assert_close(got, expected[:, :, None, None].expand_as(got), atol=1e-4, rtol=1e-4)


def test_equal_grids_give_the_papers_equation_with_the_norm_at_the_source():
    module, outputs = _build([4, 6, 5, 3], [(6, 5)] * 4, {})
    values, scores = module._projected(outputs[-1], outputs[:-1])
    logits = [score[:, 0] / output.square().mean(1).add(1e-6).sqrt() for score, output in zip(scores, outputs)]
    weights = torch.stack(logits, dim=1).softmax(1)
    expected = torch.einsum("bnhw,bnchw->bchw", weights, torch.stack(values, dim=1))
    torch.testing.assert_close(_attend(module, outputs), expected)


def test_the_result_lies_between_the_values():
    """A weighted mean all the way: of values between 0 and 1 it is between 0 and 1, however large the logits are."""
    module, outputs = _build(*CASES["deep"], {})
    sources, mean_squares = module._drawn(outputs[-1], _history(outputs))
    values, scores = module._projected(outputs[-1], sources)
    unit = [torch.rand_like(value) for value in values]
    result = nested_attention(unit, [score * 1e6 for score in scores], mean_squares)
    assert result.min() >= 0 and result.max() <= 1 + 1e-6


def _kept(recompute: bool) -> int:
    """Numbers that autograd keeps for the backward pass."""
    module, outputs = _build(*CASES["deep"], {"recompute": recompute})
    shapes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
        _attend(module, outputs)
    return sum(shape.numel() for shape in shapes)


def test_projected_sources_are_not_kept_with_recompute():
    assert _kept(recompute=True) < _kept(recompute=False) / 2


def test_a_projection_that_is_no_longer_plain_is_called():
    module, outputs = _build(*CASES["two sources"], {})
    called = []
    hook = module.projections[0].register_forward_hook(lambda *_: called.append(1))
    expected = _attend(module, outputs)
    assert called == [1]
    hook.remove()
    prune.l1_unstructured(module.projections[0], "weight", amount=0.5)
    for _ in range(2):
        result = _attend(module, outputs)
        result.sum().backward()
    assert not torch.allclose(result, expected)


def test_a_batch_of_none():
    module, outputs = _build(*CASES["encoder"], {}, batch=0)
    assert _attend(module, outputs).shape == (0, 7, 4, 3)


@pytest.mark.parametrize("form", CHOICES["form"])
@pytest.mark.parametrize("case", ["encoder", "decoder", "deep"])
def test_the_result_is_of_the_type_of_the_current_feature(case, form):
    module, outputs = _build(*CASES[case], {"form": form})
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert _attend(module, [*outputs[:-1], outputs[-1].to(dtype)]).dtype == dtype


def test_stages_that_do_not_fit_are_refused_in_one_line():
    module, outputs = _build(*CASES["encoder"], {})
    with pytest.raises(ValueError, match=r"^got sources of \[3, 6\] channels, expected \[3, 5\]; correct the widths"):
        _attend(module, [outputs[0], torch.rand(2, 6, 8, 6), outputs[2]])
    with pytest.raises(ValueError, match=r"^got 1 sources, expected 2, one for each width"):
        CrossStageAttention(2, 8, [4, 4], sources=[0])
    with pytest.raises(ValueError, match=r"^got the stages a, b, a, expected names that differ"):
        cross_stage_attentions(2, [Stage(name, 4, "encoder") for name in "aba"])
    with pytest.raises(ValueError, match=r"^got the part decode of a stage, expected encoder or decoder"):
        cross_stage_attentions(2, [Stage("a", 4, "decode")])
    with pytest.raises(ValueError, match=r"^got a skip from c to b, expected one from a stage before it"):
        cross_stage_attentions(2, [Stage("a", 4, "encoder"), Stage("b", 4, "decoder", skip="c")])
    with pytest.raises(ValueError, match=r"^got spatial_dims=1, expected 2 or 3"):
        CrossStageAttention(1, 4, [4])


def test_a_history_without_the_current_feature_is_refused():
    module = CrossStageAttention(2, 8, [4, 8])
    with pytest.raises(ValueError, match=r"history of 0 stage outputs, expected at least 3.*append"):
        module(torch.rand(1, 8, 4, 4), FeatureHistory())


def test_without_sources_the_current_feature_is_all_there_is():
    history, current = FeatureHistory(), torch.rand(1, 4, 8, 8)
    history.append(current)
    torch.testing.assert_close(CrossStageAttention(2, 4, [])(current, history), current)
