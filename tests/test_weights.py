from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from ignite.handlers import DiskSaver
from monai.bundle import ConfigParser
from monai.networks.nets import UNETR, SwinUNETR, UNet
from torch import nn

from tests.networks.case import awaken
from xattnres_monai import XAttnResUNet
from xattnres_monai.weights import LoadReport, WrongShape, load_backbone

ARGUMENTS = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": (4, 8, 16),
    "strides": (2, 2),
    "num_res_units": 1,
    "norm": "batch",
}


def plain_unet(**changes) -> UNet:
    """With running statistics of its own, as after a training."""
    torch.manual_seed(1)
    network = UNet(**{**ARGUMENTS, **changes})
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, network.in_channels, *[16] * network.dimensions) * 5)
    return network


def unet(**changes) -> XAttnResUNet:
    torch.manual_seed(2)
    return XAttnResUNet(**{**ARGUMENTS, **changes}, xattnres={"fusion": "residual"})


def swin(feature_size: int = 12, seed: int = 0, **changes) -> SwinUNETR:
    torch.manual_seed(seed)
    return SwinUNETR(
        **{"in_channels": 1, "out_channels": 2, "feature_size": feature_size, "spatial_dims": 3, **changes}
    )


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def prefixed(prefix: str):
    return lambda state: {prefix + name: value for name, value in state.items()}


WRAPPINGS = {
    "raw": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": []}},
    "network": lambda state: {"network": state, "trainer": {"epoch": 3}, "best_metric": 0.5},
    "nested": lambda state: {"model": {"state_dict": state}},
    "module": prefixed("module."),
    "backbone": prefixed("backbone."),
    "module.backbone": prefixed("module.backbone."),
    "compiled": prefixed("_orig_mod."),
    "wrapped and prefixed": lambda state: {"state_dict": prefixed("module.")(state)},
}


@pytest.mark.parametrize("on_disk", [True, False], ids=["path", "mapping"])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_a_warm_started_network_is_the_monai_network_bit_for_bit(wrap, on_disk, tmp_path):
    plain, network = plain_unet(), unet()
    checkpoint = wrap(plain.state_dict())
    if on_disk:
        torch.save(checkpoint, tmp_path / "plain.pt")
        checkpoint = str(tmp_path / "plain.pt")
    report = load_backbone(network, checkpoint)
    assert set(report.matched) == set(plain.state_dict())
    assert not report.missing and not report.unexpected and not report.wrong_shape
    image = torch.rand(2, 1, 16, 24)
    for mode in (False, True):  # in train mode last: it moves the running statistics
        plain.train(mode)
        network.train(mode)
        assert torch.equal(network(image), plain(image))


def test_buffers_load_and_own_parameters_keep_their_initial_values():
    plain, network = plain_unet(), awaken(unet())
    before = snapshot(network.xattnres)
    load_backbone(network, plain.state_dict())
    statistics = dict(plain.named_buffers())
    assert any("running_mean" in name for name in statistics)
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())
    assert equal(network.xattnres.state_dict(), before)


def test_half_precision_checkpoints_load_in_the_precision_of_the_network():
    network = unet()
    load_backbone(network, plain_unet().half().state_dict())
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_a_checkpoint_of_the_same_network_loads_its_attention_too(tmp_path):
    trained = awaken(unet())
    for state in (trained.state_dict(), {"network": trained.state_dict(), "best_metric": 0.5}):
        DiskSaver(tmp_path, require_empty=False)(state, "last.pt")  # as ResumableCheckpoint writes
        network = unet()
        report = load_backbone(network, tmp_path / "last.pt")
        assert equal(network.state_dict(), trained.state_dict())
        assert any(name.startswith("xattnres.") for name in report.matched)


def test_a_checkpoint_of_another_attention_loads_the_backbone():
    trained = XAttnResUNet(**ARGUMENTS, xattnres={"query": "spatial"})
    network = unet()
    report = load_backbone(network, trained.state_dict())
    assert not report.missing and all(name.startswith("xattnres.") for name in report.unexpected)


# What differs in the plain network or in ours, and which entries are then of another shape
DIFFERENCES = {
    "classes": ({"out_channels": 5}, {}, lambda name: name.startswith("model.2.")),
    "modalities": (
        {"in_channels": 3},
        {},
        lambda name: name in ("model.0.conv.unit0.conv.weight", "model.0.residual.weight"),
    ),
    "no skips": ({}, {"xattnres": {"skip_connections": False}}, lambda name: name.endswith("2.0.conv.weight")),
}


@pytest.mark.parametrize("plain_changes, changes, differs", DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_entries_of_another_shape_are_skipped(plain_changes, changes, differs, capsys):
    state = plain_unet(**plain_changes).state_dict()
    network = XAttnResUNet(**{**ARGUMENTS, **changes})
    before = snapshot(network)
    report = load_backbone(network, state)
    assert report.wrong_shape and not report.missing and not report.unexpected
    for name, found, expected in report.wrong_shape:
        assert differs(name) and found == state[name].shape and expected == before[name].shape
        assert torch.equal(network.state_dict()[name], before[name])
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in report.matched)
    assert len(report.matched) + len(report.wrong_shape) == len(state)
    printed = capsys.readouterr().out
    name, found, expected = report.wrong_shape[0]
    assert f"{name} {found} for {expected}" in printed


def test_the_report_says_what_was_left_out(capsys):
    state = plain_unet().state_dict()
    del state["model.0.conv.unit0.conv.bias"]
    network = unet()
    report = load_backbone(network, {**state, "head.weight": torch.zeros(2), "epoch": 3})
    assert report.missing == ("model.0.conv.unit0.conv.bias",)
    assert report.unexpected == ("head.weight", "epoch")
    assert set(report.matched) == set(state) and report.wrong_shape == ()
    assert capsys.readouterr().out == f"load_backbone, the checkpoint: {report}\n"
    assert str(report).splitlines() == [
        f"{len(state)} parameters and buffers matched, 1 missing, 2 unexpected, 0 of another shape",
        "  missing (initial values kept): model.0.conv.unit0.conv.bias",
        "  unexpected (not used): head.weight, epoch",
    ]


def test_the_summary_names_the_first_few():
    report = LoadReport(("a",), tuple("bcdef"), (), (WrongShape("g", (2,), (3,)),))
    assert "missing (initial values kept): b, c, d and 2 more\n" in str(report)
    assert "another shape (initial values kept): g (2,) for (3,)" in str(report)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.missing = ()


def test_other_networks_of_monai_load_as_well():
    arguments = {"in_channels": 1, "out_channels": 2, "img_size": 32, "feature_size": 4, "hidden_size": 12}
    one, other = (UNETR(**arguments, mlp_dim=16, num_heads=2, spatial_dims=2) for _ in range(2))
    load_backbone(other, {"model": one.state_dict()})
    assert equal(one.state_dict(), other.state_dict())


# --- what is refused ------------------------------------------------------------------------------------------------

UNRELATED = {
    "another class": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 4)).state_dict(), ["0.weight", "model.0."]),
    "other widths": (plain_unet(channels=(8, 16, 32)).state_dict(), ["(8, 1, 3, 3)", "(4, 1, 3, 3)"]),
    "other dimensions": (plain_unet(spatial_dims=3).state_dict(), ["(4, 1, 3, 3, 3)", "(4, 1, 3, 3)"]),
    "a few of the entries": (dict(list(plain_unet().state_dict().items())[:2]), ["found nothing else", "model.0."]),
    "no tensors": ({"epoch": 3, "lr": 0.1}, ["epoch, lr", "'state_dict'"]),
    "nothing": ({}, ["nothing", "expected a state dict"]),
    "an optimizer": ({"optimizer": {"state": {}}}, ["optimizer", "expected a state dict"]),
}


@pytest.mark.parametrize("checkpoint, words", UNRELATED.values(), ids=UNRELATED.keys())
def test_an_unrelated_checkpoint_is_refused_and_changes_nothing(checkpoint, words):
    network = unet()
    before = snapshot(network)
    with pytest.raises(ValueError, match="; give ") as caught:
        load_backbone(network, checkpoint)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message and all(word in message for word in words), message
    assert equal(network.state_dict(), before)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


def save_hostile(path: Path) -> None:
    torch.save({"state_dict": plain_unet().state_dict(), "extra": Hostile(path.parent / "ran")}, path)


FILES = {
    "missing": (lambda path: None, FileNotFoundError, "no such file"),
    "text": (lambda path: path.write_text("not a checkpoint\n" * 9), ValueError, "not readable"),
    "empty": (lambda path: path.touch(), ValueError, "not readable"),
    "folder": (lambda path: path.mkdir(), ValueError, "not readable"),
    "a whole network": (lambda path: torch.save(nn.Linear(1, 1), path), ValueError, "state_dict()"),
    "a tensor": (lambda path: torch.save(torch.zeros(1), path), ValueError, "got Tensor"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), ValueError, "got list"),
    "hostile": (save_hostile, ValueError, "not readable"),
}


@pytest.mark.parametrize("write, error, words", FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_checkpoint_is_named_in_one_line(write, error, words, tmp_path):
    path = tmp_path / "with space.pt"
    write(path)
    network = unet()
    before = snapshot(network)
    with pytest.raises(error) as caught:
        load_backbone(network, path)
    message = str(caught.value)
    assert str(path) in message and words in message and "\n" not in message and "weights_only=False" not in message
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    assert equal(network.state_dict(), before)
    assert not (tmp_path / "ran").exists()


def test_the_hostile_file_would_run_if_it_were_unpickled(tmp_path):
    save_hostile(tmp_path / "hostile.pt")
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("nonsense", [None, 3, [1]])
def test_neither_path_nor_mapping(nonsense):
    with pytest.raises(TypeError, match="expected a path or a state dict"):
        load_backbone(unet(), nonsense)


# --- SwinUNETR's self-supervised encoders ---------------------------------------------------------------------------


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


# --- bundles --------------------------------------------------------------------------------------------------------


def test_a_bundle_config_can_call_it(tmp_path):
    plain = plain_unet()
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    network_def = {"_target_": "xattnres_monai.XAttnResUNet", **ARGUMENTS, "xattnres": {"fusion": "residual"}}
    config = {
        "imports": ["$import xattnres_monai"],
        "network_def": network_def,
        "backbone_checkpoint": str(tmp_path / "plain.pt"),
        "warm_start": "$xattnres_monai.weights.load_backbone(@network_def, @backbone_checkpoint)",
    }
    parser = ConfigParser(config)
    parser.get_parsed_content("imports")
    report = parser.get_parsed_content("warm_start")
    network = parser.get_parsed_content("network_def").eval()
    assert not report.missing
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(network(image), plain.eval()(image))
