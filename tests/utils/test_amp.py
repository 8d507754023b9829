from __future__ import annotations

import pytest
import torch

from xattnres_monai.utils.amp import autocast, default_precision


def test_precision():
    assert autocast("fp16") == {"dtype": torch.float16}
    assert default_precision() in ("bf16", "fp16") if torch.cuda.is_available() else default_precision() == "fp32"
    with pytest.raises(ValueError, match="got precision='half', expected one of bf16, fp16, fp32"):
        autocast("half")
