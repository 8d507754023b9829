"""A check of the keys of a bundle's config: one that changes nothing is refused."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY

__all__ = ["check_keys"]


def check_keys(bundle_root: str) -> None:
    """Refuse keys that change nothing; for a ``$`` expression in the ``initialize`` of a bundle's config.

    MONAI takes any key of the command line into the config without a word, so that a misspelt one trains the default.
    A key is taken when a config of the bundle has it, or when something in the config refers to it or to what holds it.

    Args:
        bundle_root: folder of the bundle. Where it holds no configs, nothing is checked: ``monai.bundle.load`` does not
            tell it.

    Raises:
        ValueError: names the keys, and those that may have been meant.
    """
    config = _surrounding_parser().get()
    known = {str(entry["id"]) for entry in (*TrainProperties.values(), *InferProperties.values())}
    known |= set(DEFAULT_MLFLOW_SETTINGS["configs"])  # MONAI's federated client names its runs, tracked or not
    configs = [path for path in (Path(bundle_root) / "configs").glob("*.json") if path.name != "metadata.json"]
    if not configs:
        return
    for path in configs:
        known |= set(_keys(ConfigParser.load_config_file(path)))
    referred = set(_references("", config))
    unknown = [
        key
        for key in _keys(config)
        if not key.startswith("_")
        and not any(_within(other, key) for other in known | referred)
        and not any(_within(key, other) for other in referred)
    ]
    if unknown:
        faults = [f"the key {key} changes nothing{_hint(key, known)}" for key in unknown]
        raise ValueError("; ".join(faults).replace(ID_SEP_KEY, "#"))


def _surrounding_parser() -> ConfigParser:
    # MONAI gives an expression no way to reach the config that it is part of, other than the stack
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigParser):
            return frame.f_locals["self"]
        frame = frame.f_back
    raise RuntimeError("check_keys was called outside a config, expected '$...check_keys(@bundle_root)' in one")


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Ids of all entries that are not arguments of a component, which refuses unknown ones itself."""
    for key, value in config.items():
        yield ReferenceResolver.normalize_id(prefix + key)
        if isinstance(value, Mapping) and "_target_" not in value and key != ConfigParser.meta_key:
            yield from _keys(value, prefix + key + ID_SEP_KEY)


def _references(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from ReferenceResolver.match_refs_pattern(ConfigParser.resolve_relative_ids(key, value))
    elif isinstance(value, Mapping | list):
        for child, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _references(f"{key}{ID_SEP_KEY}{child}" if key else str(child), entry)


def _within(key: str, other: str) -> bool:
    """Whether an id is another or lies inside it, as ``train#trainer`` lies inside ``train``."""
    return f"{key}{ID_SEP_KEY}".startswith(f"{other}{ID_SEP_KEY}")


def _hint(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ", expected one that a config of the bundle has"
