from __future__ import annotations

from monai.networks.nets import SegResNet

from tests.networks.case import Case
from tests.networks.contract import NetworkContract
from tests.networks.export_contract import ScriptContract
from xattnres_monai import XAttnResSegResNet


class TestXAttnResSegResNet(ScriptContract, NetworkContract):
    network_class = XAttnResSegResNet
    monai_class = SegResNet
    cases = {
        "2d": Case(
            dict(spatial_dims=2, in_channels=1, out_channels=2, init_filters=8),
            sizes=((16, 24), (8, 32)),
            refused=((12, 16),),
            multiple=(8, 8),
        ),
        "3d": Case(
            dict(
                spatial_dims=3, in_channels=2, out_channels=3, init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1),
                upsample_mode="deconv",
            ),
            sizes=((8, 12, 16),),
            refused=((8, 10, 12),),
            multiple=(4, 4, 4),
        ),
    }  # fmt: skip
