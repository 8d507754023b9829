"""The command ``bundles``, which renders, checks, lists, verifies and packs the bundles of a zoo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from xattnres_monai.bundles.packing import pack
from xattnres_monai.bundles.render import bundle_folders, rendered_files
from xattnres_monai.bundles.verify import verify
from xattnres_monai.utils.atomic_write import replace_text
from xattnres_monai.utils.tables import columns

__all__ = ["Bundles"]


class Bundles:
    """Render, check, list, verify and pack the bundles of a zoo.

    Args:
        zoo: folder that holds the bundles and ``templates``; by default ``bundles`` beside the package's source.
    """

    def __init__(self, zoo: str | Path | None = None) -> None:
        self.zoo = Path(__file__).parents[2] / "bundles" if zoo is None else Path(zoo)
        if not (self.zoo / "templates").is_dir():
            raise FileNotFoundError(
                f"{self.zoo} has no folder templates, expected the zoo of a clone of xattnres-monai; give it with --zoo"
            )

    def render(self) -> str:
        """Write every file that is generated from the templates and a ``bundle.yaml``."""
        files = rendered_files(self.zoo)
        stale = [path for path, text in files.items() if _text(path) != text]
        for path in stale:
            replace_text(path, files[path])
        return "\n".join([*(f"rendered {path}" for path in stale), f"{len(files) - len(stale)} files were up to date"])

    def check(self) -> str:
        """Check that ``render`` would change no file; the ``ValueError`` names the files that it would change."""
        files = rendered_files(self.zoo)
        stale = [str(path) for path, text in files.items() if _text(path) != text]
        if stale:
            raise ValueError(
                f"{len(stale)} files are stale: {', '.join(stale)}; run `python -m xattnres_monai bundles render`"
            )
        return f"{len(files)} files are up to date"

    def list(self) -> str:
        """Print a table of the bundles: name, data, modality, network, weights, and the mean Dice of these weights."""
        rows = [("bundle", "data", "modality", "network", "weights", "Dice")]
        for folder in bundle_folders(self.zoo):
            metadata = json.loads((folder / "configs" / "metadata.json").read_text())
            network = json.loads((folder / "configs" / "train.json").read_text())["network_def"]["_target_"]
            weights = "models/model.pt" if (folder / "models" / "model.pt").exists() else "none"
            measured = metadata["eval_metrics"].get("mean_dice")
            dice = "not trained here" if measured is None else f"{measured:.3f}"
            modality = metadata["network_data_format"]["inputs"]["image"]["modality"]
            rows.append((folder.name, metadata["name"], modality, network.rpartition(".")[2], weights, dice))
        return columns(rows)

    def verify(self, *bundles: str, schema: str = "", trust: str | Sequence[str] = (), all: bool = False) -> str:
        """Check bundles as MONAI's model zoo does, and check that they export to TorchScript.

        A failed check raises a ``ValueError``.

        Args:
            bundles: folders of bundles, or names of bundles in the zoo.
            schema: file of MONAI's metadata schema; it is downloaded if you do not give it.
            trust: names of further code that the configs may run, separated by commas, such as ``--trust mypackage``.
            all: check every bundle of the zoo.
        """
        folders = bundle_folders(self.zoo) if all else [self._folder(name) for name in bundles]
        if not folders:
            raise ValueError("got no bundle, expected one or more; give names, or --all for the whole zoo")
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
        """Pack a bundle into the kind of zip archive that ``monai.bundle.download`` expects.

        Args:
            bundle: folder of the bundle, or its name in the zoo.
            output: folder for the archive; it must lie outside the bundle.
            vendor: put a copy of this package into the archive, for machines where the package is not installed.
        """
        return f"wrote {pack(self._folder(bundle), output, vendor)}"

    def _folder(self, bundle: str) -> Path:
        return Path(bundle) if Path(bundle).exists() else self.zoo / bundle


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
