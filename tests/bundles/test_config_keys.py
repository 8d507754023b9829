from __future__ import annotations

import pytest
from monai.bundle import ConfigParser

from xattnres_monai.bundles.config_keys import check_keys

CONFIG = {
    "bundle_root": "",
    "dataset_dir": "/data",
    "rate": 0.1,
    "sizes": {"small": 3, "large": {"even": 4}},
    "train": {"trainer": {"_target_": "torch.nn.Linear", "in_features": "@sizes#small", "out_features": 2}, "batch": 4},
    "macro": "%train#batch",
    "initialize": ["$config_keys.check_keys(@bundle_root)", "$print(@rate, @sizes, @train#batch, @macro)"],
    "imports": ["$import xattnres_monai.bundles.config_keys as config_keys"],
    "run": [],
    "finalize": [],
}


def check(tmp_path, **more):
    """The check inside a config, of a bundle that has that config."""
    (tmp_path / "configs").mkdir(exist_ok=True)
    ConfigParser.export_config_file({**CONFIG, "unused": 1}, str(tmp_path / "configs" / "train.json"))
    parser = ConfigParser({**CONFIG, "bundle_root": str(tmp_path)})
    for key, value in more.items():
        parser.set(value, key)
    return parser.get_parsed_content("initialize#0")


@pytest.mark.parametrize(
    "key", ["rate", "train#batch", "train#trainer#bias", "sizes#anything", "sizes#large#odd", "unused", "_comment"]
)
def test_keys_that_change_something(tmp_path, key):
    assert check(tmp_path, **{key: 1}) is None


@pytest.mark.parametrize(
    "key, words",
    [
        ("raet", "the key raet changes nothing; did you mean rate?"),
        ("train#btach", "the key train#btach changes nothing; did you mean train#batch?"),
        ("zzzzzz", "the key zzzzzz changes nothing, expected one that a config of the bundle has"),
    ],
)
def test_keys_that_change_nothing(tmp_path, key, words):
    with pytest.raises(RuntimeError) as caught:
        check(tmp_path, **{key: 1})
    assert str(caught.value.__cause__) == words


def test_all_of_them_are_named_at_once(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        check(tmp_path, raet=1, btch=2)
    assert "raet" in str(caught.value.__cause__) and "btch" in str(caught.value.__cause__)


def test_outside_a_config():
    with pytest.raises(RuntimeError, match="check_keys was called outside a config"):
        check_keys("")
