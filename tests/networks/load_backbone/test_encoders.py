"""SwinUNETR's self-supervised encoders, in the layouts in which they are published."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks.load_backbone.checkpoints import equal, prefixed, snapshot, swin
from xattnres_monai.networks.load_backbone import load_backbone


def encoder(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if name.startswith("swinViT.")}


def published(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """``model_swinvit.pt``: what ``SwinUNETR.load_from`` reads."""
    names = {name: name.removeprefix("swinViT.").replace(".mlp.linear", ".mlp.fc") for name in state}
    return {"state_dict": {f"module.{names[name]}": value for name, value in state.items()}}


def published_autoencoder(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """``ssl_pretrained_weights.pth``: what ``filter_swinunetr`` reads."""
    names = {name: name.removeprefix("swinViT.") for name in state}
    for number in "1234":
        names = {key: name.replace(f"layers{number}.0.", f"layers{number}.0.0.") for key, name in names.items()}
    extra = {"encoder.mask_token": torch.zeros(1), "encoder.norm.weight": torch.zeros(1), "decoder.x": torch.zeros(1)}
    return {"model": {**{f"encoder.{names[name]}": value for name, value in state.items()}, **extra}}


def bare(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("swinViT."): value for name, value in state.items()}


LAYOUTS = {
    "model_swinvit.pt": published,
    "with linear1": lambda state: {"state_dict": prefixed("module.")(bare(state))},
    "without prefix": bare,
    "swinViT": lambda state: state,
    "module.swinViT and fc": lambda state: {
        "state_dict": {f"module.{name.replace('.mlp.linear', '.mlp.fc')}": value for name, value in state.items()}
    },
    "ssl_pretrained_weights.pth": published_autoencoder,
}


@pytest.fixture(scope="module")
def pretrained() -> dict[str, torch.Tensor]:
    state = encoder(swin(seed=1))
    generator = torch.Generator().manual_seed(0)  # norms are all ones and zeros in a new network
    return {name: value + torch.rand(value.shape, generator=generator).to(value) for name, value in state.items()}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_an_encoder_alone_loads(layout, pretrained):
    network = swin()
    before = snapshot(network)
    report = load_backbone(network, layout(pretrained))
    assert equal(encoder(network), pretrained) and set(report.matched) == set(pretrained)
    rest = {name: value for name, value in before.items() if name not in pretrained}
    assert report.missing == tuple(rest)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in rest.items())


def test_the_published_layouts_are_those_that_monai_reads(pretrained):
    from monai.networks import copy_model_state
    from monai.networks.nets.swin_unetr import filter_swinunetr

    ours = swin()
    load_backbone(ours, published(pretrained))
    theirs = swin()
    theirs.load_from(published(pretrained))
    assert equal(ours.state_dict(), theirs.state_dict())
    theirs = swin()
    copy_model_state(theirs, published_autoencoder(pretrained)["model"], filter_func=filter_swinunetr)
    assert equal(ours.state_dict(), theirs.state_dict())


def test_an_encoder_of_one_modality_loads_into_a_network_of_four(pretrained):
    network = swin(in_channels=4)
    report = load_backbone(network, published(pretrained))
    assert [entry.name for entry in report.wrong_shape] == ["swinViT.patch_embed.proj.weight"]


def test_an_encoder_of_the_first_version_loads_into_the_second():
    state, network = encoder(swin(feature_size=36)), swin(feature_size=36, use_v2=True, seed=1)
    sizes = {name: value.numel() for name, value in network.named_parameters() if name.startswith("swinViT.")}
    assert sum(size for name, size in sizes.items() if name in state) < sum(sizes.values()) / 2  # as at MONAI's 48
    report = load_backbone(network, published(state))
    assert set(report.matched) == set(state)


def test_too_little_of_an_encoder_is_refused_with_its_size(pretrained):
    network = swin()
    before = snapshot(network)
    size = sum(value.numel() for name, value in network.named_parameters() if name in pretrained)
    part = {name: value for name, value in pretrained.items() if "layers4" not in name}
    with pytest.raises(ValueError, match=rf"of {size} backbone parameters.*expected swinViT\.layers4"):
        load_backbone(network, published(part))
    with pytest.raises(ValueError, match="at least half"):
        load_backbone(network, published(encoder(swin(feature_size=24))))
    assert equal(network.state_dict(), before)
