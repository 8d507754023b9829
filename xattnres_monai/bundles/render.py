"""Render the zoo's bundles from shared templates and one ``bundle.yaml`` per bundle.

MONAI's tools read ``train.json`` or ``inference.json`` alone, so every bundle must be complete by itself. The parts
that bundles share are templates in ``bundles/templates``. They are merged ahead of time by the rules of MONAI's
``ConfigParser``: the key ``a`` sets an id, ``a#b`` sets a nested id, and ``+a`` extends a list or dictionary.

``bundle.yaml`` holds what differs between bundles, in sections. ``common`` goes into ``train.json`` and
``inference.json``. ``train``, ``evaluate``, ``inference`` and ``metadata`` go into the file of that name.
``network_unet`` and the like go into the overlay of that network, and into the bundle's own configs if it uses that
network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from xattnres_monai.bundles.published_weights import description

__all__ = ["bundle_folders", "rendered_files"]

NETWORKS = ("network_unet", "network_unetr", "network_swin_unetr")
SECTIONS = ("common", "train", "evaluate", "inference", "metadata", *NETWORKS)


def bundle_folders(zoo: Path) -> list[Path]:
    """Return the folders of a zoo's bundles, sorted by name."""
    return sorted(path.parent for path in zoo.glob("*/bundle.yaml"))


def rendered_files(zoo: Path) -> dict[Path, str]:
    """Return the text of every file that is generated from the templates and a ``bundle.yaml``, by its path.

    Args:
        zoo: folder that holds the bundles and ``templates``.

    Raises:
        ValueError: when a ``bundle.yaml`` has an unknown section or network, or extends a key that does not exist.
    """
    files: dict[Path, str] = {}
    for folder in bundle_folders(zoo):
        for name, config in _configs(zoo, folder).items():
            files[folder / "configs" / f"{name}.json"] = json.dumps(config, indent=4) + "\n"
        files[folder / "configs" / "logging.conf"] = (zoo / "templates" / "logging.conf").read_text()
        files[folder / "LICENSE"] = (zoo.parent / "LICENSE").read_text()
    return files


def _configs(zoo: Path, folder: Path) -> dict[str, dict[str, Any]]:
    facts = yaml.safe_load((folder / "bundle.yaml").read_text())
    if set(facts) - set(SECTIONS):
        raise ValueError(f"{folder / 'bundle.yaml'} has sections {sorted(facts)}, expected only {', '.join(SECTIONS)}")
    template = {path.stem: _load(path) for path in (zoo / "templates").glob("*.json")}
    given = {section: facts.get(section, {}) for section in SECTIONS}
    networks = {name: _merge(template[name], given[name]) for name in NETWORKS}
    network = networks[_own_network(folder, given["common"])]
    architecture = {key: value for key, value in network.items() if key != "learning_rate"}  # only training needs it
    inference = _merge(template["common"], architecture, given["common"])
    train = _merge(template["common"], network, given["common"])
    return {
        "train": _merge(train, template["train"], given["train"]),
        "evaluate": _merge(template["evaluate"], given["evaluate"]),
        "inference": _merge(inference, template["inference"], given["inference"]),
        "multi_gpu_train": template["multi_gpu_train"],
        **networks,
        **{name: config for name, config in template.items() if name.startswith("variant_")},
        # MONAI's tools read the metadata as plain JSON, so references in it are resolved here
        "metadata": {
            **ConfigParser({**_merge(inference, given["metadata"]), "_": template["metadata"]}).get_parsed_content("_"),
            **description(folder),
        },
    }


def _own_network(folder: Path, common: Mapping[str, Any]) -> str:
    name = f"network_{common.get('network_name')}"
    if name not in NETWORKS:
        raise ValueError(
            f"{folder / 'bundle.yaml'} has network_name: {common.get('network_name')} in its section common, "
            f"expected one of {', '.join(network.removeprefix('network_') for network in NETWORKS)}"
        )
    return name


def _load(path: Path) -> dict[str, Any]:
    return ConfigParser.load_config_file(path)


def _merge(base: dict[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    parser = ConfigParser(deepcopy(base))
    for layer in layers:
        for key, value in layer.items():
            if key.startswith("+") and key[1:] not in parser:
                raise ValueError(
                    f"got {key}, expected a key of the template after the +; to set a new key, write {key[1:]}"
                )
            merge_kv(parser, key, value)
    return {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
