"""Labels as small as the maps that they are compared with."""
import torch.nn.functional as F
from torch import Tensor


def shrink(labels: Tensor, like: Tensor) -> Tensor:
    """Labels (N, H, W) at the height and width of a map (N, ..., h, w)."""
    return F.interpolate(labels[:, None].float(), like.shape[-2:], mode='nearest-exact')[:, 0].to(labels.dtype)
