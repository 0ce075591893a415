"""The projection from a classifier's input to the space in which pixels are contrasted."""
from mmcv.cnn import build_norm_layer
from mmseg.registry import MODELS
from torch import Tensor, nn

from fedseg_mm.seeding import seeded


@MODELS.register_module()
class ProjectionHead(nn.Module):
    """1x1 convolution, batch norm or another one, ReLU, 1x1 convolution.

    The L2 normalisation that ends the projection is left to whoever uses the
    embeddings, because contrast needs that of a few thousand pixels only.

    Args:
        in_channels (int): Channels of what enters the classifier.
        channels (int): Channels of the embedding. Defaults to 256.
        seed (int): Its weights have a generator of their own: they change no
            other weight of the model. Defaults to 0.
        norm_cfg (dict, optional): The norm layer, as in MMSegmentation.
            Defaults to None: ``dict(type='BN')``.
    """

    def __init__(self, in_channels: int, channels: int = 256, seed: int = 0, norm_cfg: dict | None = None) -> None:
        super().__init__()
        with seeded(seed):
            self.layers = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 1), build_norm_layer(norm_cfg or dict(type='BN'), in_channels)[1],
                nn.ReLU(inplace=True), nn.Conv2d(in_channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings, whose length means nothing.

        Args:
            features (Tensor): Shape (N, in_channels, h, w).

        Returns:
            Tensor: Shape (N, channels, h, w).
        """
        return self.layers(features)
