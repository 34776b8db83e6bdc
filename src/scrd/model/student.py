"""The student: a decoder that rebuilds the teacher's feature maps from the embedding."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from scrd.model.blocks import StagePlan, initialise, make_stage


class Student(nn.Module):
    """Mirror of the teacher, deepest scale first (Deng & Li 2022, section 3.1).

    Args:
        channels: the teacher's channel counts (C_1, C_2, C_3) at strides 4, 8, 16.
        in_channels: channels of the embedding φ.
        plan: blocks and depths.
        rectify: end each stage in a ReLU. ``False`` where the teacher's features take negative
            values (EfficientNet-Lite, ConvNeXt, ...), which a rectified student cannot match.
    """

    def __init__(
        self, channels: Sequence[int], in_channels: int, plan: StagePlan, rectify: bool
    ) -> None:
        super().__init__()
        self.rectified = rectify
        c1, c2, c3 = channels
        d3, d2, d1 = plan.student_depths
        self.stage3 = make_stage(plan, in_channels, c3, d3, "up", rectify_last=rectify)
        self.stage2 = make_stage(plan, c3, c2, d2, "up", rectify_last=rectify)
        self.stage1 = make_stage(plan, c2, c1, d1, "up", rectify_last=rectify)
        initialise(self)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode φ (B, C_φ, H/32, W/32) into v_1, v_2, v_3, shaped like u_1, u_2, u_3."""
        v3 = self.stage3(embedding)
        v2 = self.stage2(v3)
        v1 = self.stage1(v2)
        return v1, v2, v3
