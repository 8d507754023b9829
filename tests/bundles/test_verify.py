from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from tests.bundles.runs import NAMES, ZOO
from tests.conftest import data_folder
from xattnres_monai.bundles.command import Bundles
from xattnres_monai.bundles.verify import verify

CHECKS = ["files", "version", "metadata", "expressions", "properties", "network", "weights", "TorchScript"]
SMALL = "mni152_mri_segmentation"  # with weights
LARGE = [name for name in NAMES if any(organs in name for organs in ("amos", "btcv"))]


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle to break."""
    return shutil.copytree(ZOO / SMALL, tmp_path / SMALL, ignore=shutil.ignore_patterns("output", "data"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in NAMES])
def test_every_bundle_passes(name, schema):
    found = verify(ZOO / name, schema)
    assert [check for check, _, _ in found] == CHECKS
    failed = {check: text for check, passed, text in found if not passed}
    assert set(failed) <= ({"metadata"} if not schema.exists() else set()), failed


@pytest.fixture
def schema():
    """The model zoo's schema of metadata, where it is at hand."""
    return data_folder() / "meta_schema.json"


def metadata(bundle, change):
    path = bundle / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def without_a_file(bundle):
    (bundle / "docs" / "data_license.txt").unlink()


def with_a_large_file(bundle):
    (bundle / "models" / "model.ts").write_bytes(bytes(26_000_000))


def with_a_version_that_the_changelog_lacks(bundle):
    metadata(bundle, lambda content: content.update(version="9.9.9"))


def without_a_property(bundle):
    path = bundle / "configs" / "train.json"
    path.write_text(
        path.read_text().replace('"train_handlers": "@train#handlers"', '"train_handlers": "@validate#handlers"')
    )


def with_a_channel_more(bundle):
    metadata(bundle, lambda content: content["network_data_format"]["outputs"]["pred"].update(num_channels=4))


def with_other_weights(bundle):
    torch.save({}, bundle / "models" / "model.pt")


def without_its_weights(bundle):
    (bundle / "models" / "model.pt").unlink()


def with_weights_that_the_metadata_do_not_state(bundle):
    metadata(bundle, lambda content: content.pop("weights"))


def with_weights_of_another_network(bundle):
    path = bundle / "configs" / "inference.json"
    path.write_text(path.read_text().replace('"num_res_units": 0', '"num_res_units": 2'))


@pytest.mark.parametrize(
    ("spoil", "check", "message"),
    [
        (without_a_file, "files", "no docs/data_license.txt, expected every file of a bundle"),
        (with_a_large_file, "files", "models/model.ts has 26.0 MB, expected at most 25 MB"),
        (with_a_version_that_the_changelog_lacks, "version", "got version 9.9.9, expected one of the changelog: "),
        (without_a_property, "properties", "train: MONAI does not find train_handlers, expected "),
        (with_a_channel_more, "network", "output channel number `3` doesn't match: `4`"),
        (with_other_weights, "weights", "expected .* as in the metadata; restore it"),
        (with_weights_that_the_metadata_do_not_state, "weights", "state no SHA-256 of models/model.pt, expected one"),
        (
            without_its_weights,
            "weights",
            "no models/model.pt, expected the weights with SHA-256 [0-9a-f]{64} from the ",
        ),
        (with_weights_of_another_network, "weights", "Error.s. in loading state_dict for XAttnResUNet"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_told_by_the_check_that_it_fails(bundle, tmp_path, spoil, check, message):
    spoil(bundle)
    failed = {name: text for name, passed, text in verify(bundle, tmp_path / "absent.json") if not passed}
    assert set(failed) - {"metadata", "TorchScript"} == {check}
    absent = tmp_path / "absent.json"
    assert failed["metadata"] == f"got no file {absent}, expected the schema; check the path after --schema"
    assert re.search(message, failed[check]) and "\n" not in failed[check]


def test_a_bundle_with_strange_code_is_not_run_unless_it_is_trusted(bundle, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strange.py").write_text(f"from pathlib import Path\n\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "imports": ["$import strange", *config["imports"]], "a": "$strange.a()"}))
    found = verify(bundle, tmp_path / "absent.json")
    assert [check for check, _, _ in found] == CHECKS[: CHECKS.index("expressions") + 1]
    assert found[-1][1:] == (
        False,
        "2 entries are not on the allow list, so the bundle was not run: configs/inference.json, imports#0: "
        "$import strange; configs/inference.json, a: $strange.a(); read them, and name what you trust with --trust",
    )
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match=r"^1 checks failed\n(.*\n)* +FAILED +metadata (.*\n)+  ok +TorchScript"):
        Bundles().verify(str(bundle), schema=str(tmp_path / "absent.json"), trust="torch.float16,strange")
    assert (tmp_path / "ran").exists()


def test_metadata_that_the_schema_forbids(real_data, bundle):
    metadata(bundle, lambda content: content.pop("network_data_format"))
    found = {name: (passed, text) for name, passed, text in verify(bundle, real_data / "meta_schema.json")}
    passed, text = found["metadata"]
    assert not passed and "network_data_format" in text and "\n" not in text


def test_the_command_prints_what_was_found_and_fails_with_it(real_data, bundle):
    schema = str(real_data / "meta_schema.json")
    text = Bundles().verify(SMALL, schema=schema)
    assert text.splitlines()[0] == SMALL and text.count("  ok ") == len(CHECKS)
    without_a_file(bundle)
    with pytest.raises(ValueError, match=r"^1 checks failed\n(.*\n)*.*FAILED +files +no docs/data_license.txt"):
        Bundles().verify(str(bundle), schema=schema)


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(ValueError, match="got no bundle, expected one or more; give names, or --all for the whole zoo"):
        Bundles().verify()
    with pytest.raises(FileNotFoundError, match=r"got .*absent, which is no folder, expected a bundle's folder"):
        Bundles().verify(str(tmp_path / "absent"))
