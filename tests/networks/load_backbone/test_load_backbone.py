from __future__ import annotations

import dataclasses

import pytest
import torch
from ignite.handlers import DiskSaver
from monai.bundle import ConfigParser
from monai.networks.nets import UNETR

from tests.networks.case import awaken
from tests.networks.load_backbone.checkpoints import ARGUMENTS, equal, plain_unet, prefixed, snapshot, unet
from xattnres_monai import XAttnResUNet
from xattnres_monai.networks.load_backbone import LoadReport, WrongShape, load_backbone

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


def test_a_bundle_config_can_call_it(tmp_path):
    plain = plain_unet()
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    network_def = {"_target_": "xattnres_monai.XAttnResUNet", **ARGUMENTS, "xattnres": {"fusion": "residual"}}
    config = {
        "imports": ["$import xattnres_monai"],
        "network_def": network_def,
        "backbone_checkpoint": str(tmp_path / "plain.pt"),
        "warm_start": "$xattnres_monai.networks.load_backbone.load_backbone(@network_def, @backbone_checkpoint)",
    }
    parser = ConfigParser(config)
    parser.get_parsed_content("imports")
    report = parser.get_parsed_content("warm_start")
    network = parser.get_parsed_content("network_def").eval()
    assert not report.missing
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(network(image), plain.eval()(image))
