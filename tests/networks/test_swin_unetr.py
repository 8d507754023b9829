from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SwinUNETR

from tests.networks.case import Case
from tests.networks.contract import NetworkContract
from xattnres_monai import XAttnResSwinUNETR


class TestXAttnResSwinUNETR(NetworkContract):
    network_class = XAttnResSwinUNETR
    monai_class = SwinUNETR
    exports_slowly = True
    batch = 1
    cases = {
        "2d": Case(
            dict(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), window_size=3),
            sizes=((64, 64), (32, 96)),
            refused=((48, 64), (32, 32)),
            multiple=(32, 32),
        ),
        "3d": Case(
            dict(in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), window_size=3),
            sizes=((64, 32, 32),),
            refused=((64, 48, 32), (32, 32, 32)),
            multiple=(32, 32, 32),
        ),
    }

    def skip(self, stage):
        return "encoder1" if stage == "decoder1" else ""

    @pytest.mark.parametrize(
        "options",
        [
            {"use_v2": True},
            {"use_checkpoint": True},
            {"downsample": "mergingv2"},
            {"normalize": False},
            {"patch_norm": True},
        ],
        ids=str,
    )
    def test_options_of_the_backbone_go_on_working(self, options):
        case = self.cases["2d"]
        arguments = {**case.arguments, **options}
        plain, network = SwinUNETR(**arguments), XAttnResSwinUNETR(**arguments, xattnres={"stages": "none"})
        network.load_state_dict(plain.state_dict(), strict=True)
        assert torch.equal(network(self.image(case)), plain(self.image(case)))
        XAttnResSwinUNETR(**arguments)(self.image(case)).sum().backward()

    def test_the_history_holds_what_the_next_stage_takes_not_the_normalised_hidden_states(self):
        case = self.cases["2d"]
        network = XAttnResSwinUNETR(**case.arguments, xattnres={"stages": "none"}).eval()
        histories = []
        network.xattnres["decoder1"].register_forward_hook(lambda _, given, __: histories.append(given[1]))
        network(self.image(case))
        raw = network.swinViT(self.image(case), normalize=False)
        for stage, hidden in enumerate(raw, start=1):
            torch.testing.assert_close(histories[0].feature(stage), hidden)
