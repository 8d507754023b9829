"""The zoo's bundles: rendered from templates and one ``bundle.yaml`` each.

MONAI's tools read ``train.json`` or ``inference.json`` alone, so a bundle has to be whole by itself. What bundles share
lies in ``bundles/templates`` and is composed ahead of time with the merge rules of MONAI's ``ConfigParser``: a key sets
an id, ``a#b`` a nested one, and ``+a`` extends a list or dictionary. ``bundle.yaml`` gives the facts, in sections:
``common`` goes into train.json and inference.json; ``train``, ``evaluate``, ``inference`` and ``metadata`` into the
file of that name; ``network_unet`` and so on into the overlay of that network, and wherever it is the bundle's own.
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
    """Folders of the bundles of a zoo, in order of their names."""
    return sorted(path.parent for path in zoo.glob("*/bundle.yaml"))


def rendered_files(zoo: Path) -> dict[Path, str]:
    """Text of every file that the templates and ``bundle.yaml`` determine, by its path.

    Args:
        zoo: folder of the bundles and of ``templates``.

    Raises:
        ValueError: when a ``bundle.yaml`` has an unknown section or network, or extends a key that there is not.
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
    architecture = {key: value for key, value in network.items() if key != "learning_rate"}  # what inference needs
    inference = _merge(template["common"], architecture, given["common"])
    train = _merge(template["common"], network, given["common"])
    return {
        "train": _merge(train, template["train"], given["train"]),
        "evaluate": _merge(template["evaluate"], given["evaluate"]),
        "inference": _merge(inference, template["inference"], given["inference"]),
        "multi_gpu_train": template["multi_gpu_train"],
        **networks,
        **{name: config for name, config in template.items() if name.startswith("variant_")},
        # MONAI's tools read metadata as plain JSON: its references to facts are resolved here
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
                    f"{key} is to extend {key[1:]}, which the template does not have; set it without the +"
                )
            merge_kv(parser, key, value)
    return {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
