"""What is no checkpoint of the network is refused, in one line, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.networks.load_backbone.checkpoints import equal, plain_unet, snapshot, unet
from xattnres_monai.networks.load_backbone import load_backbone

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
