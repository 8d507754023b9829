"""What every XAttnRes network promises when it is exported or compiled: the same output as in eager mode."""

from __future__ import annotations

import io
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from tests.networks.case import VARIANTS, Case, NetworkCases, assert_agrees

# an export takes seconds, to ONNX up to a minute: the default, and the variant that differs from it in every option
EXPORTED = [VARIANTS[0], VARIANTS[4]]
ONNX = [VARIANTS[0], pytest.param(VARIANTS[4], marks=pytest.mark.slow)]


def name(options: dict[str, Any]) -> str:
    return "-".join(map(str, options.values()))


class ExportContract(NetworkCases):
    """Inherited by :class:`tests.networks.contract.NetworkContract`."""

    @pytest.mark.parametrize("options", EXPORTED, ids=name)
    def test_a_trace_agrees_with_eager_at_another_batch_size(self, first_case: Case, options: dict[str, Any]):
        network = self.build(first_case, **options).eval()
        self.assert_exported(first_case, network, torch.jit.trace(network, self.image(first_case, batch=1)))

    def assert_exported(self, case: Case, network: nn.Module, exported: torch.jit.ScriptModule) -> None:
        buffer = io.BytesIO()
        torch.jit.save(exported, buffer)
        buffer.seek(0)
        loaded, image = torch.jit.load(buffer), self.image(case, batch=3)
        assert_agrees(loaded(image), network(image))

    @pytest.mark.parametrize("options", ONNX, ids=name)
    def test_onnx_agrees_with_eager_at_another_batch_size(self, exported_case: Case, options: dict[str, Any], tmp_path):
        network, image = self.build(exported_case, **options).eval(), self.image(exported_case, batch=2)
        batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
        path = tmp_path / "network.onnx"
        torch.onnx.export(network, (image,), path, dynamo=True, dynamic_shapes=batch, verbose=False)
        session = onnxruntime.InferenceSession(path)
        for count in (1, 3):
            given = self.image(exported_case, batch=count)
            (got,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
            assert_agrees(torch.from_numpy(got), network(given))

    @pytest.mark.parametrize("options", EXPORTED, ids=name)
    @pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
    def test_torch_compile_agrees_with_eager(self, exported_case: Case, options: dict[str, Any], backend: str):
        torch._dynamo.reset()
        network, image = self.build(exported_case, **options).eval(), self.image(exported_case, batch=2)
        assert_agrees(torch.compile(network, fullgraph=True, backend=backend)(image), network(image))


class ScriptContract(ExportContract):
    """Inherited beside :class:`tests.networks.contract.NetworkContract` by networks that can be scripted too."""

    def test_torchscript_agrees_with_eager(self, case: Case, variant: dict[str, Any]):
        network = self.build(case, **variant).eval()
        self.assert_exported(case, network, torch.jit.script(network))
