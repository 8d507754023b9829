"""The zoo's bundles: rendered from templates and one ``bundle.yaml`` each.

MONAI's tools read ``train.json`` or ``inference.json`` alone, so a bundle has to be whole by itself. What bundles share
lies in ``bundles/templates`` and is composed ahead of time with the merge rules of MONAI's ``ConfigParser``: a key sets
an id, ``a#b`` a nested one, and ``+a`` extends a list or dictionary. ``bundle.yaml`` gives the facts, in sections:
``common`` goes into train.json and inference.json; ``train``, ``evaluate``, ``inference`` and ``metadata`` into the
file of that name; ``network_unet`` and so on into the overlay of that network, and wherever it is the bundle's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from tqdm import tqdm

from xattnres_monai.files import replace_text
from xattnres_monai.packing import pack
from xattnres_monai.published import description
from xattnres_monai.tables import columns
from xattnres_monai.verify import verify

__all__ = ["Bundles"]

NETWORKS = ("network_unet", "network_unetr", "network_swin_unetr")
SECTIONS = ("common", "train", "evaluate", "inference", "metadata", *NETWORKS)


class Bundles:
    """Render, check, list, verify and pack the bundles of a zoo.

    Args:
        zoo: folder of the bundles and of ``templates``; by default the one beside the installed package's source.
    """

    def __init__(self, zoo: str | Path | None = None) -> None:
        self.zoo = Path(__file__).parents[1] / "bundles" if zoo is None else Path(zoo)
        if not (self.zoo / "templates").is_dir():
            raise FileNotFoundError(
                f"{self.zoo} has no folder templates, expected the zoo of a clone of xattnres-monai; give it with --zoo"
            )

    def render(self) -> str:
        """Write the files of every bundle that its ``bundle.yaml`` and the templates determine."""
        files = self._files()
        stale = [path for path, text in files.items() if _text(path) != text]
        for path in stale:
            replace_text(path, files[path])
        return "\n".join([*(f"rendered {path}" for path in stale), f"{len(files) - len(stale)} files were fresh"])

    def check(self) -> str:
        """Raise a ``ValueError`` that names every rendered file that differs from what ``render`` would write."""
        files = self._files()
        stale = [str(path) for path, text in files.items() if _text(path) != text]
        if stale:
            raise ValueError(
                f"{len(stale)} files are stale: {', '.join(stale)}; run `python -m xattnres_monai bundles render`"
            )
        return f"{len(files)} files are fresh"

    def list(self) -> str:
        """A table of the bundles: name, data, modality, network, weights, and the mean Dice measured with them."""
        rows = [("bundle", "data", "modality", "network", "weights", "Dice")]
        for folder in self._folders():
            metadata = json.loads((folder / "configs" / "metadata.json").read_text())
            network = json.loads((folder / "configs" / "train.json").read_text())["network_def"]["_target_"]
            weights = "models/model.pt" if (folder / "models" / "model.pt").exists() else "none"
            measured = metadata["eval_metrics"].get("mean_dice")
            dice = "not trained here" if measured is None else f"{measured:.3f}"
            modality = metadata["network_data_format"]["inputs"]["image"]["modality"]
            rows.append((folder.name, metadata["name"], modality, network.rpartition(".")[2], weights, dice))
        return columns(rows)

    def verify(self, *bundles: str, schema: str = "", trust: str | Sequence[str] = (), all: bool = False) -> str:
        """Check bundles as MONAI's model zoo does, and that they export; a ``ValueError`` when one fails.

        Args:
            bundles: folders, or names in the zoo.
            schema: file of MONAI's schema of metadata; downloaded where it is not given.
            trust: names of code that the configs may run beyond what the zoo's do, e.g. ``--trust mypackage``; several
                are separated by commas.
            all: check every bundle of the zoo.
        """
        folders = self._folders() if all else [self._folder(name) for name in bundles]
        if not folders:
            raise ValueError("got no bundle, expected the names of some, or --all")
        lines, failed = [], 0
        for folder in tqdm(folders, desc="verify", unit="bundle", disable=None):
            found = verify(folder, schema, trust.split(",") if isinstance(trust, str) else trust)
            lines.append(folder.name)
            lines += [f"  {'ok' if passed else 'FAILED':8}{check:12}{text}" for check, passed, text in found]
            failed += sum(not passed for _, passed, _ in found)
        text = "\n".join(lines)
        if failed:
            raise ValueError(f"{failed} checks failed\n{text}")
        return text

    def pack(self, bundle: str, output: str = ".", vendor: bool = False) -> str:
        """Write a bundle as the zip archive that ``monai.bundle.download`` takes.

        Args:
            bundle: its folder, or its name in the zoo.
            output: folder for the archive.
            vendor: put a copy of this package into it, for machines where it is not installed.
        """
        return f"wrote {pack(self._folder(bundle), output, vendor)}"

    def _folder(self, bundle: str) -> Path:
        return Path(bundle) if Path(bundle).exists() else self.zoo / bundle

    def _folders(self) -> Sequence[Path]:
        return sorted(path.parent for path in self.zoo.glob("*/bundle.yaml"))

    def _files(self) -> dict[Path, str]:
        files: dict[Path, str] = {}
        for folder in self._folders():
            for name, config in self._configs(folder).items():
                files[folder / "configs" / f"{name}.json"] = json.dumps(config, indent=4) + "\n"
            files[folder / "configs" / "logging.conf"] = (self.zoo / "templates" / "logging.conf").read_text()
            files[folder / "LICENSE"] = (self.zoo.parent / "LICENSE").read_text()
        return files

    def _configs(self, folder: Path) -> dict[str, dict[str, Any]]:
        facts = yaml.safe_load((folder / "bundle.yaml").read_text())
        if set(facts) - set(SECTIONS):
            raise ValueError(
                f"{folder / 'bundle.yaml'} has sections {sorted(facts)}, expected only {', '.join(SECTIONS)}"
            )
        template = {path.stem: _load(path) for path in (self.zoo / "templates").glob("*.json")}
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
                **ConfigParser({**_merge(inference, given["metadata"]), "_": template["metadata"]}).get_parsed_content(
                    "_"
                ),
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


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
