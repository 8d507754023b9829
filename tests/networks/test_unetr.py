from __future__ import annotations

from monai.networks.nets import UNETR

from tests.networks.case import Case
from tests.networks.contract import NetworkContract
from xattnres_monai import XAttnResUNETR


class TestXAttnResUNETR(NetworkContract):
    network_class = XAttnResUNETR
    monai_class = UNETR
    exports_slowly = True
    cases = {
        "2d": Case(
            dict(
                in_channels=1, out_channels=2, img_size=(32, 48), spatial_dims=2,
                feature_size=4, hidden_size=12, mlp_dim=16, num_heads=2,
            ),
            sizes=((32, 48),),
            refused=((32, 32),),
            multiple=(32, 48),
        ),
        "3d": Case(
            dict(
                in_channels=2, out_channels=3, img_size=(32, 16, 32), feature_size=4, hidden_size=12, mlp_dim=16,
                num_heads=2, conv_block=True, res_block=False, norm_name="batch",
            ),
            sizes=((32, 16, 32),),
            refused=((32, 32, 32),),
            multiple=(32, 16, 32),
        ),
    }  # fmt: skip

    def skip(self, stage):
        return "encoder1" if stage == "decoder2" else ""
