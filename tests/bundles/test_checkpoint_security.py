"""A checkpoint is data: a file whose pickle would run something is refused by every way that reads one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from monai.bundle import ckpt_export, load

from tests.bundles.runs import ZOO, overrides, run, train, workflow
from xattnres_monai import load_backbone
from xattnres_monai.bundles.command import Bundles
from xattnres_monai.experiments.maps.command import maps

NAME = "msd_hippocampus_mri_segmentation"
OURS = {"load_backbone", "maps", "verify"}  # the others end in an error of torch


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def small_network(folder):
    return workflow(NAME, "inference", folder, folder).parser.get_parsed_content("network_def")


def resume(path, data, folder):
    (folder / "checkpoints").mkdir()
    shutil.copy(path, folder / "checkpoints" / "last.pt")
    train(NAME, data, folder, epochs=1)
    raise RuntimeError("the run started anew")


def infer(path, data, folder):
    run(NAME, "inference", data, folder, checkpoint=str(path))


def evaluate(path, data, folder):
    run(NAME, "train evaluate", data, folder, checkpoint=str(path))


def backbone(path, data, folder):
    load_backbone(small_network(folder), path)


def show_maps(path, data, folder):
    given = overrides(NAME, data, folder, training=False)
    maps(str(ZOO / NAME), str(data / "imagesTs" / "ellipsoids_010.nii.gz"), checkpoint=str(path), **given)


def published(path, folder):
    """A copy of the bundle that publishes the file, and says so."""
    root = shutil.copytree(ZOO / NAME, folder / "zoo" / NAME, ignore=shutil.ignore_patterns("output", "data"))
    shutil.copy(path, root / "models" / "model.pt")
    shutil.copytree(ZOO / "templates", folder / "zoo" / "templates")
    shutil.copy(ZOO.parent / "LICENSE", folder)
    Bundles(folder / "zoo").render()
    return root


def verify(path, data, folder):
    with pytest.raises(ValueError, match="checks failed") as caught:
        Bundles().verify(str(published(path, folder)), schema=str(folder / "absent.json"))
    raise ValueError(re.search("FAILED +weights +(.*)", str(caught.value))[1])


def export(path, data, folder):
    root = ZOO / NAME
    files = {"meta_file": root / "configs" / "metadata.json", "config_file": root / "configs" / "inference.json"}
    small = overrides(NAME, data, folder, training=False)
    given = {key: str(value) for key, value in {**files, "ckpt_file": path, "filepath": folder / "model.ts"}.items()}
    ckpt_export("network_def", bundle_root=str(root), **given, **small)


def load_bundle(path, data, folder):
    load(NAME, bundle_dir=str(published(path, folder).parent), source="github")


WAYS = {
    "resuming": resume,
    "inference.json": infer,
    "evaluate.json": evaluate,
    "load_backbone": backbone,
    "maps": show_maps,
    "verify": verify,
    "ckpt_export": export,
    "monai.bundle.load": load_bundle,
}


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("way", WAYS)
def test_a_malicious_checkpoint_does_not_run(way, decathlon, tmp_path, capfd):
    path, marker = tmp_path / "hostile.pt", tmp_path / "ran"
    torch.save({"model": small_network(tmp_path).state_dict(), "extra": Hostile(marker)}, path)
    torch.load(path, weights_only=False)
    assert marker.exists(), "expected a checkpoint that would run"
    marker.unlink()
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises((RuntimeError, ValueError, UnpicklingError)) as caught:
        WAYS[way](path, decathlon, folder)
    assert not marker.exists()
    refused = any(isinstance(error, UnpicklingError) for error in causes(caught.value))
    assert refused or "not readable as tensors alone" in f"{caught.value}{capfd.readouterr().out}"
    if way in OURS:
        assert "not readable as tensors alone" in str(caught.value) and "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


def test_the_minimum_versions_are_those_that_the_page_gives_reasons_for():
    rows = re.findall(r"^\| ([a-z]+) \| ([\d.]+) \|", (ZOO.parent / "docs" / "security.md").read_text(), re.MULTILINE)
    bounds = re.findall(r'"([a-z]+)>=([\d.]+)[,"]', (ZOO.parent / "pyproject.toml").read_text())
    assert rows and sorted(rows) == sorted(bound for bound in bounds if bound[0] not in ("scipy", "setuptools"))


def test_make_label_serves_this_machine_only():
    plan = subprocess.run(["make", "-n", "label"], cwd=ZOO.parent, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"--host (\S+)", plan) == ["127.0.0.1"]
