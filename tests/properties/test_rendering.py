"""Bundles of facts that nobody chose: what is rendered is what was said, and rendering it again changes nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from tests.bundles.runs import ZOO
from tests.properties.strategies import fewer, options
from xattnres_monai.bundles.command import Bundles
from xattnres_monai.bundles.render import NETWORKS

# what a person writes, in any script; to MONAI @ and # are parts of a reference, wherever they are, and a first $ or %
# makes an expression or a macro
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="@#"), min_size=1, max_size=20
)
TEXTS = words.filter(lambda text: text[0] not in "$%" and text.strip() == text)
POSITIVE = st.floats(0.1, 10, allow_subnormal=False)


@st.composite
def facts(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    dimensions = draw(st.sampled_from([2, 3]))
    levels = draw(st.integers(1, 4))
    names = draw(st.lists(TEXTS, min_size=2, max_size=6))
    metadata = ("title", "task", "description", "modality", "data_source", "image_classes")
    return {
        "common": {
            "network_name": draw(st.sampled_from(NETWORKS)).removeprefix("network_"),
            "labels": {str(value): name for value, name in enumerate(names)},
            "spatial_dims": dimensions,
            "spacing": draw(st.lists(POSITIVE, min_size=3, max_size=3)),
            "roi_size": [32 * draw(st.integers(1, 6)) for _ in range(dimensions)],
            "intensity": {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": draw(st.booleans())},
            "dataset_dir": "$@bundle_root + '/data'",
            "sliding_window#overlap": draw(st.floats(0, 0.9)),
            "xattnres": draw(options()),
        },
        "network_unet": {
            "network_def#channels": draw(st.lists(st.integers(1, 512), min_size=levels + 1, max_size=levels + 1)),
            "network_def#strides": draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels)),
        },
        "train": {
            "cases": "$msd.datalist(@data_root)",
            "+train#augmentation": [{"_target_": "RandFlipd", "keys": "image", "prob": draw(st.floats(0, 1))}],
            "train#trainer#max_epochs": draw(st.integers(1, 2000)),
            "batch_size": draw(st.integers(1, 64)),
        },
        "metadata": {
            **{name: draw(TEXTS) for name in metadata},
            "value_range": draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2)),
            "eval_metrics": draw(st.dictionaries(TEXTS, st.floats(0, 1), max_size=2)),
        },
    }  # fmt: skip


def written(zoo: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}


@fewer(4)
@given(said=facts())
def test_what_is_rendered_is_what_was_said_and_stays(said):
    with tempfile.TemporaryDirectory() as name:
        zoo = Path(name) / "bundles"
        shutil.copytree(ZOO / "templates", zoo / "templates")
        shutil.copy(ZOO.parent / "LICENSE", name)
        bundle = zoo / "anything_mri_segmentation"
        bundle.mkdir()
        (bundle / "bundle.yaml").write_text(yaml.safe_dump(said, allow_unicode=True))
        Bundles(zoo).render()
        files = written(zoo)

        parsed = {path.stem: ConfigParser.load_config_file(path) for path in (bundle / "configs").glob("*.json")}
        for config, content in parsed.items():
            again = {key: value for key, value in ConfigParser(content).get().items() if key != ConfigParser.meta_key}
            assert (json.dumps(again, indent=4) + "\n").encode() == files[bundle / "configs" / f"{config}.json"]
        for config, section in (("train", "common"), ("inference", "common"), ("train", "train")):
            parser = ConfigParser(parsed[config])
            plain = {key: value for key, value in said[section].items() if not key.startswith("+")}
            assert {key: parser[key] for key in plain} == plain
            assert parser.get_parsed_content("labels") == said["common"]["labels"]
        assert parsed["train"]["train"]["augmentation"][-1:] == said["train"]["+train#augmentation"]
        outputs = parsed["metadata"]["network_data_format"]["outputs"]["pred"]
        assert outputs["channel_def"] == said["common"]["labels"]
        assert parsed["metadata"]["name"] == said["metadata"]["title"]

        assert Bundles(zoo).render() == Bundles(zoo).check().replace("are", "were")
        assert written(zoo) == files
