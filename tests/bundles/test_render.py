from __future__ import annotations

import json
import shutil
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

from tests.bundles.runs import NAMES, ZOO
from xattnres_monai.bundles.command import Bundles


@pytest.fixture
def zoo(tmp_path):
    """A copy of the zoo to break."""
    shutil.copy(ZOO.parent / "LICENSE", tmp_path)
    return shutil.copytree(ZOO, tmp_path / "bundles", ignore=shutil.ignore_patterns("output"))


def test_rendered_files_are_fresh():
    assert "files are up to date" in Bundles().check()


def test_a_stale_file_is_named_and_rendered_again(zoo):
    train = zoo / NAMES[0] / "configs" / "train.json"
    train.write_text(train.read_text().replace('"fold": 0', '"fold": 1'))
    (zoo / NAMES[1] / "LICENSE").unlink()
    with pytest.raises(
        ValueError, match=rf"2 files are stale: .*{NAMES[0]}/configs/train.json.*bundles render"
    ) as caught:
        Bundles(zoo).check()
    assert "\n" not in str(caught.value)
    assert Bundles(zoo).render().count("rendered ") == 2
    assert Bundles(zoo).check()


def test_rendering_twice_changes_nothing(zoo):
    Bundles(zoo).render()
    assert "rendered" not in Bundles(zoo).render()


def test_a_fact_reaches_every_file_that_states_it(zoo):
    bundle = zoo / "mni152_mri_segmentation"
    facts = bundle / "bundle.yaml"
    facts.write_text(facts.read_text().replace("white matter", "myelin").replace("roi_size: [48", "roi_size: [96"))
    Bundles(zoo).render()
    configs = {path.stem: json.loads(path.read_text()) for path in (bundle / "configs").glob("*.json")}
    assert configs["train"]["labels"]["2"] == configs["inference"]["labels"]["2"] == "myelin"
    data_format = configs["metadata"]["network_data_format"]
    assert data_format["outputs"]["pred"]["channel_def"]["2"] == "myelin"
    assert data_format["inputs"]["image"]["spatial_shape"] == configs["inference"]["roi_size"] == [96, 48, 48]
    assert configs["network_swin_unetr"]["roi_size"] == [64, 64, 64]


def test_an_unknown_network_is_an_error(zoo):
    facts = zoo / "busi_ultrasound_segmentation" / "bundle.yaml"
    facts.write_text(facts.read_text().replace("network_name: unet", "network_name: vnet"))
    with pytest.raises(
        ValueError, match=r"network_name: vnet in its section common, expected one of unet, unetr, swin"
    ):
        Bundles(zoo).render()


def test_an_unknown_section_is_an_error(zoo):
    facts = zoo / NAMES[0] / "bundle.yaml"
    facts.write_text(facts.read_text().replace("train:", "training:"))
    with pytest.raises(ValueError, match=r"bundle.yaml has sections .*'training'.*expected only common, train"):
        Bundles(zoo).render()


def test_a_folder_that_is_no_zoo(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no folder templates, expected the zoo .* --zoo"):
        Bundles(tmp_path)


def test_the_list_names_every_bundle_with_its_network():
    lines = Bundles().list().splitlines()
    assert [line.split()[0] for line in lines] == ["bundle", *NAMES]
    networks = {line.split()[0]: line.split("XAttnRes")[1].split()[0] for line in lines[1:]}
    assert networks["acdc_mri_segmentation"] == "UNet" and networks["btcv_ct_segmentation"] == "SwinUNETR"
    for line in lines[1:]:
        published = (ZOO / line.split()[0] / "models" / "model.pt").exists()
        assert ("models/model.pt" in line) == published and ("not trained here" in line) != published


@pytest.mark.parametrize("name", NAMES)
class TestEveryBundle:
    def test_has_a_file_for_every_template(self, name):
        files = [f"configs/{config.stem}.json" for config in (ZOO / "templates").glob("[!c]*.json")]
        for file in [*files, "configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"]:
            assert (ZOO / name / file).is_file(), file

    def test_metadata_states_the_tested_versions(self, name):
        metadata = json.loads((ZOO / name / "configs" / "metadata.json").read_text())
        stated = {
            "monai": metadata["monai_version"],
            "torch": metadata["pytorch_version"],
            "numpy": metadata["numpy_version"],
            **metadata["required_packages_version"],
        }
        pinned = dict(
            line.split(";")[0].strip().split("==") for line in (ZOO.parent / "constraints.txt").open() if "==" in line
        )
        pinned["xattnres-monai"] = version("xattnres-monai")
        assert stated == {package: pinned[package] for package in stated}
        needed = {Requirement(line).name for line in requires("xattnres-monai") if "extra ==" not in line}
        assert needed <= {package.lower() for package in stated}, "a vendored bundle has nothing else"
