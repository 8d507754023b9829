"""Label files that appear only when they are complete. A full disk or a killed process leaves no partial file."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import monai.data
import monai.transforms

from xattnres_monai.utils.errors import one_line

__all__ = ["SaveImaged"]

logger = logging.getLogger(__name__)


class _Whole:
    """Mixin for MONAI's writers. It writes under a hidden name beside the file, and renames the complete file."""

    def write(self, filename: str | Path, verbose: bool = False, **kwargs: Any) -> None:
        path = Path(filename)
        part = path.with_name(f".{path.name}")  # the libraries choose the format by the extension
        try:
            super().write(part, verbose=False, **kwargs)  # type: ignore[misc]
            part.replace(path)
        except OSError as error:
            raise OSError(f"{path} cannot be written ({error}); make room or give another output_dir") from None
        finally:
            part.unlink(missing_ok=True)
        if verbose:
            logger.info(f"written: {path}")


class _NIfTI(_Whole, monai.data.NibabelWriter):
    pass


class _PNG(_Whole, monai.data.PILWriter):
    pass


class SaveImaged(monai.transforms.SaveImaged):
    """MONAI's ``SaveImaged`` for NIfTI and PNG that writes complete files or none.

    Args:
        *args: arguments of MONAI's ``SaveImaged``.
        output_ext: extension of the files, ``.nii.gz``, ``.nii`` or ``.png``.
        **kwargs: keyword arguments of MONAI's ``SaveImaged``.

    Raises:
        OSError: when a file cannot be written, or when its folder cannot be made.
    """

    def __init__(self, *args: Any, output_ext: str = ".nii.gz", **kwargs: Any) -> None:
        super().__init__(*args, output_ext=output_ext, writer=_PNG if output_ext == ".png" else _NIfTI, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        try:
            return super().__call__(data)
        except RuntimeError as error:
            # MONAI only says that it found no writer; the last line of the traceback in its text holds our message
            raise OSError(str(error).strip().splitlines()[-1].partition(": ")[2] or one_line(error)) from None
        except OSError as error:
            raise OSError(f"the folder for the labels cannot be made ({error}); give another output_dir") from None
