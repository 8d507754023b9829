"""The weights in a bundle's ``models/model.pt`` are those of the SHA-256 in its metadata, or are refused."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import sha256

import numpy as np
import pytest
import torch

from tests.bundles.runs import SMALL, ZOO, overrides
from xattnres_monai.bundles.command import Bundles
from xattnres_monai.bundles.published_weights import checked
from xattnres_monai.bundles.workflows import workflow
from xattnres_monai.experiments.maps.command import maps

NAME = "mni152_mri_segmentation"


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle with one bit of a published tensor changed, which torch does not notice."""
    root = shutil.copytree(ZOO / NAME, tmp_path / NAME, ignore=shutil.ignore_patterns("output", "data"))
    path = root / "models" / "model.pt"
    before = torch.load(path, weights_only=True)
    content = bytearray(path.read_bytes())
    tensor = max(before.values(), key=torch.numel)
    content[content.index(tensor.numpy().tobytes()) + 40] ^= 1
    path.write_bytes(content)
    after = torch.load(path, weights_only=True)
    assert sum(not torch.equal(after[name], tensor) for name, tensor in before.items()) == 1
    return root


@pytest.fixture
def data(tmp_path):
    return SMALL[NAME].write(tmp_path / "data")


def refused(error: BaseException | None) -> bool:
    """Whether the error, or what it comes from, is the one line about the sum."""
    while error is not None:
        if re.fullmatch(
            r".*model\.pt has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64} as in the metadata; .*", str(error)
        ):
            return True
        error = error.__cause__
    return False


def run(bundle, configs, data, tmp_path, **more):
    """With the published network's own size."""
    given = {"data_root": str(data), "output_dir": str(tmp_path / "output"), "num_workers": 0, "device": "cpu", **more}
    flow = workflow(bundle, configs.split(), **given)
    flow.initialize()
    flow.run()


@pytest.mark.parametrize("configs", ["inference", "train evaluate"])
def test_a_changed_bit_is_refused_before_the_weights_are_used(bundle, data, tmp_path, configs):
    with pytest.raises(RuntimeError) as caught:
        run(bundle, configs, data, tmp_path)
    assert refused(caught.value)
    assert not (tmp_path / "output" / "predictions").exists() and not (tmp_path / "output" / "evaluation").exists()
    run(ZOO / NAME, configs, data, tmp_path)  # and the published ones are not


def test_maps_refuses_them_too(bundle, data, tmp_path):
    image = data / "imagesTs" / "ellipsoids_010.nii.gz"
    with pytest.raises(RuntimeError) as caught:
        maps(str(bundle), str(image), output=str(tmp_path / "output"))
    assert refused(caught.value)


def test_a_checkpoint_of_ones_own_is_not_compared(bundle, data, tmp_path):
    own = shutil.copy(bundle / "models" / "model.pt", tmp_path / "own.pt")
    run(bundle, "inference", data, tmp_path, checkpoint=str(own))
    assert list((tmp_path / "output" / "predictions").iterdir())


def test_nothing_is_compared_where_nothing_is_stated(bundle):
    path = bundle / "configs" / "metadata.json"
    with pytest.raises(ValueError, match="expected") as caught:
        checked(bundle)
    assert refused(caught.value)
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "weights"}))
    assert checked(bundle) == str(bundle / "models" / "model.pt")
    path.unlink()
    assert checked(str(bundle)) == str(bundle / "models" / "model.pt")


def publish(root, data, **more):
    flow = workflow(
        root, ["train"], **{**overrides(NAME, data, root / "output", training=True), "publish": True, **more}
    )
    flow.initialize()
    flow.run()
    return flow


def stated(root):
    return json.loads((root / "configs" / "metadata.json").read_text())["weights"]["sha256"]


def test_a_run_that_publishes_states_the_sum_of_its_best_network(bundle, data, tmp_path, capsys):
    before = stated(bundle)
    publish(bundle, data, **{"train#trainer#max_epochs": 3})
    assert stated(bundle) == sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest() != before
    assert sorted(path.name for path in (bundle / "configs").iterdir()) == sorted(
        path.name for path in (ZOO / NAME / "configs").iterdir()
    )
    small = overrides(NAME, data, tmp_path / "output", training=False)
    flow = workflow(bundle, ["inference"], **small, device="cpu")
    flow.initialize()
    flow.run()
    assert list((tmp_path / "output" / "predictions").iterdir())


def test_only_a_better_network_is_published(bundle, data):
    """A second run of the same trainer, as a federated client makes it, goes on from the best of the first."""
    flow = publish(bundle, data, **{"train#trainer#max_epochs": 3})
    best = (bundle / "models" / "model.pt").read_bytes()
    network = flow.parser.get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(np.nan)
    flow.parser.get_parsed_content("validate#evaluator").run(1)
    assert (bundle / "models" / "model.pt").read_bytes() == best


def test_the_sum_is_written_as_render_writes_it(bundle, data, tmp_path):
    """In the zoo itself the files of a bundle are fresh after a run that publishes."""
    zoo = tmp_path / "zoo"
    shutil.copytree(ZOO / "templates", zoo / "templates")
    shutil.copy(ZOO.parent / "LICENSE", tmp_path)
    root = shutil.copytree(bundle, zoo / NAME)
    publish(root, data, **{"train#trainer#max_epochs": 1})
    assert "files are up to date" in Bundles(zoo).check()
