"""What every XAttnRes network promises when it is exported or compiled: the same output as in eager mode."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import onnxruntime
import pytest
import torch

from tests.networks.case import VARIANTS, Case, NetworkCases, assert_agrees

# the default, one with all that differs from it, and one with fewer sources: what takes seconds is not tried on all
EXPORTED = [VARIANTS[0], VARIANTS[4], VARIANTS[5]]


class ExportContract(NetworkCases):
    """Inherited by :class:`tests.networks.contract.NetworkContract`."""

    scriptable: ClassVar[bool] = True

    def test_torchscript_agrees_with_eager(self, case: Case, variant: dict[str, Any]):
        network, image = self.build(case, **variant).eval(), self.image(case)
        exported = torch.jit.script(network) if self.scriptable else torch.jit.trace(network, image)
        buffer = io.BytesIO()
        torch.jit.save(exported, buffer)
        buffer.seek(0)
        assert_agrees(torch.jit.load(buffer)(image), network(image))

    @pytest.mark.parametrize("options", EXPORTED, ids=lambda options: "-".join(map(str, options.values())))
    def test_onnx_agrees_with_eager_at_another_batch_size(self, first_case: Case, options: dict[str, Any], tmp_path):
        network, image = self.build(first_case, **options).eval(), self.image(first_case, batch=2)
        batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
        path = tmp_path / "network.onnx"
        torch.onnx.export(network, (image,), path, dynamo=True, dynamic_shapes=batch, verbose=False)
        session = onnxruntime.InferenceSession(path)
        for count in (1, 3):
            given = self.image(first_case, batch=count)
            (got,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
            assert_agrees(torch.from_numpy(got), network(given))

    @pytest.mark.parametrize("options", EXPORTED, ids=lambda options: "-".join(map(str, options.values())))
    @pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
    def test_torch_compile_agrees_with_eager(self, first_case: Case, options: dict[str, Any], backend: str):
        torch._dynamo.reset()
        network, image = self.build(first_case, **options).eval(), self.image(first_case, batch=2)
        assert_agrees(torch.compile(network, fullgraph=True, backend=backend)(image), network(image))
