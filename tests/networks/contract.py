"""What every XAttnRes network promises. A network's test file gives its class, its MONAI class and a table of cases."""

from __future__ import annotations

import copy
import io
import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.networks.case import Case
from tests.networks.export_contract import ExportContract
from xattnres_monai import CrossStageAttention, load_backbone

PARTIAL = [
    {"stages": stages, "skip_connections": skips}
    for stages, skips in itertools.product(("encoder", "decoder", "none"), (True, False))
]


# every cell of the table of options but sources and recompute; without aggregating stages only skips matter
COMBINATIONS = [
    dict(zip(("stages", "form", "query", "fusion", "skip_connections", "placement"), cell))
    for cell in itertools.product(
        ("all", "encoder", "decoder"),
        ("nested", "literal"),
        ("static", "spatial"),
        ("replace", "residual"),
        (True, False),
        ("input", "merge"),
    )
] + [{"stages": "none", "skip_connections": skips} for skips in (True, False)]


class NetworkContract(ExportContract):
    """Inherit, set the class attributes of :class:`NetworkCases`, and add what is special to the network."""

    # --- the plain network is inside --------------------------------------------------------------------------------

    def test_without_stages_it_is_the_monai_network_bit_for_bit(self, case: Case):
        plain = self.monai_class(**case.arguments)
        network = self.network_class(**case.arguments, xattnres={"stages": "none"})
        network.load_state_dict(plain.state_dict(), strict=True)
        for size in case.sizes:
            for mode in (True, False):
                plain.train(mode)
                network.train(mode)
                expected, got = plain(self.image(case, size)), network(self.image(case, size))
                assert torch.equal(got, expected)

    def test_backbone_parameters_keep_their_names(self, case: Case, variant: dict[str, Any]):
        plain = {name: tensor.shape for name, tensor in self.monai_class(**case.arguments).state_dict().items()}
        ours = {name: tensor.shape for name, tensor in self.build(case, **variant).state_dict().items()}
        backbone = {name: shape for name, shape in ours.items() if not name.startswith("xattnres.")}
        assert set(backbone) <= set(plain)
        if variant["skip_connections"]:
            assert list(backbone) == list(plain) and backbone == plain

    def test_a_warm_started_residual_network_is_the_monai_network_bit_for_bit(self, case: Case):
        plain = self.monai_class(**case.arguments).eval()
        network = self.network_class(**case.arguments, xattnres={"fusion": "residual"}).eval()
        report = load_backbone(network, plain.state_dict())
        assert not report.missing and not report.unexpected and not report.wrong_shape
        assert torch.equal(network(self.image(case)), plain(self.image(case)))

    # --- forward and backward ---------------------------------------------------------------------------------------

    def test_takes_every_size_that_monai_takes(self, case: Case, variant: dict[str, Any]):
        plain, network = self.monai_class(**case.arguments).eval(), self.build(case, **variant).eval()
        for size in case.sizes:
            assert network(self.image(case, size)).shape == plain(self.image(case, size)).shape

    def test_names_the_size_and_the_multiple_of_what_it_cannot_take(self, case: Case):
        for size in case.refused:
            with pytest.raises((RuntimeError, ValueError)):  # MONAI's class cannot take it either
                self.monai_class(**case.arguments)(self.image(case, size))
            with pytest.raises(ValueError) as caught:
                self.build(case)(self.image(case, size))
            message = str(caught.value)
            assert str(size) in message and str(case.multiple) in message and "\n" not in message

    def test_refuses_wrong_axes_and_channels_in_one_line(self, case: Case):
        network, image = self.build(case), self.image(case)
        for wrong, words in ((image[0], "axes, expected"), (torch.cat([image, image], 1), "channels, expected")):
            with pytest.raises(ValueError, match=words) as caught:
                network(wrong)
            assert "\n" not in str(caught.value) and str(tuple(wrong.shape)) in str(caught.value)

    def test_every_parameter_gets_a_gradient(self, case: Case, variant: dict[str, Any]):
        plain, network = self.monai_class(**case.arguments), self.build(case, **variant)
        for module in (plain, network):
            module(self.image(case)).square().mean().backward()
        # MONAI's classes hold parameters that they never use; biases before a normalisation get rounding noise at most
        unused = self.without_gradient(plain)
        without = {name for name in self.without_gradient(network) - unused if not name.endswith("conv.bias")}
        assert not without

    @staticmethod
    def without_gradient(network: nn.Module) -> set[str]:
        return {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}

    def test_recompute_changes_nothing_but_memory(self, case: Case):
        gradients, kept = [], []
        for recompute in (False, True):
            network = self.build(case, recompute=recompute)
            numbers: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t, n=numbers: n.append(t.numel()) or t, lambda t: t):
                loss = network(self.image(case)).square().mean()
            loss.backward()
            gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
            kept.append(sum(numbers))
        attends = any(isinstance(module, CrossStageAttention) for module in network.modules())
        assert kept[1] < kept[0] or not attends
        assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))

    @pytest.mark.parametrize("options", PARTIAL, ids=lambda options: "-".join(map(str, options.values())))
    def test_stages_that_do_not_aggregate_have_no_parameters(self, case: Case, options: dict[str, Any]):
        network = self.build(case, **options)
        network(self.image(case)).sum().backward()
        aggregating = [name for name, module in network.xattnres.items() if list(module.parameters())]
        chosen = [name for name in network.xattnres if options["stages"] == self.part(name)]
        assert aggregating == [name for name in chosen if self.sources(network, name, options)]

    def test_every_combination_of_options_takes_a_step(self, first_case: Case):
        image = self.image(first_case)
        for options in COMBINATIONS:
            network = self.build(first_case, **options)
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
            network(image).square().mean().backward()
            optimizer.step()
            assert torch.isfinite(network(image)).all(), options

    def test_placement_decides_the_grid_on_which_the_decoder_aggregates(self, case: Case):
        coarse, fine = (
            self.build(case, placement=where).attention_maps(self.image(case)) for where in ("input", "merge")
        )
        factors = {
            name: tuple(b // a for a, b in zip(coarse[name].shape[2:], fine[name].shape[2:]))
            for name in coarse
            if self.part(name) == "decoder"
        }
        expected = 2 if self.upsamples_before_merging else 1
        assert all(factor == (expected,) * len(factor) for factor in factors.values()), factors

    upsamples_before_merging: ClassVar[bool] = True

    def part(self, stage: str) -> str:
        return "decoder" if stage.startswith("decoder") else "encoder"

    def test_autocast_in_bfloat16_is_finite(self, case: Case, variant: dict[str, Any]):
        network = self.build(case, **variant)
        image = (self.image(case) * 1000).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = network(image)
        (gradient,) = torch.autograd.grad(result.float().mean(), image)
        # not the gradients of weights: those of MONAI's own 3D convolutions are now and then NaN in bfloat16 on a CPU,
        # in the plain networks too (torch 2.13.0, grids of few voxels)
        assert torch.isfinite(result).all() and torch.isfinite(gradient).all()

    def test_accepts_dropout(self, case: Case):
        network = self.network_class(**{**case.arguments, self.dropout_argument: 0.5})
        network.train()
        image = self.image(case)
        assert not torch.equal(network(image), network(image))

    dropout_argument: ClassVar[str] = "dropout"

    def test_copies_and_state_dicts_carry_everything(self, case: Case, variant: dict[str, Any]):
        network = self.build(case, **variant).eval()
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        buffer.seek(0)
        other = self.network_class(**case.arguments, xattnres=variant).eval()
        other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        expected = network(self.image(case))
        assert torch.equal(other(self.image(case)), expected)
        assert torch.equal(copy.deepcopy(network)(self.image(case)), expected)

    # --- maps -------------------------------------------------------------------------------------------------------

    def test_attention_maps_are_shares_on_the_stage_grid(self, case: Case, variant: dict[str, Any]):
        network = self.build(case, **variant).eval()
        inputs: dict[str, torch.Tensor] = {}
        for name, module in network.xattnres.items():
            module.register_forward_hook(lambda _, given, __, name=name: inputs.__setitem__(name, given[0]))
        maps = network.attention_maps(self.image(case))
        aggregating = [name for name, module in network.xattnres.items() if isinstance(module, CrossStageAttention)]
        assert list(maps) == aggregating == [name for name in network.xattnres if self.sources(network, name, variant)]
        for name, weights in maps.items():
            sources = network.xattnres[name].sources
            assert sources == self.sources(network, name, variant)
            assert weights.shape == (self.batch, len(sources) + 1, *inputs[name].shape[2:])
            torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))

    def sources(self, network: nn.Module, stage: str, options: dict[str, Any]) -> list[int]:
        """Places of the stages that ``stage`` is to draw on."""
        names = list(network.xattnres)
        before = names[: max(0, names.index(stage) - 1)]
        skips = network.skip_connections and options.get("sources") == "unskipped"
        return [place for place, name in enumerate(before) if not (skips and name == self.skip(stage))]

    def skip(self, stage: str) -> str:
        """Name of the stage whose output the skip connection of ``stage`` brings as it is."""
        return stage.replace("decoder", "encoder")

    def test_a_new_network_attends_uniformly(self, case: Case):
        network = self.network_class(**case.arguments)
        for weights in network.attention_maps(self.image(case)).values():
            torch.testing.assert_close(weights, torch.full_like(weights, 1 / weights.shape[1]))
