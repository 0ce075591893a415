"""Clipped updates and Gaussian noise on their mean."""
import secrets

import torch
from mmengine.dist import broadcast
from torch import Tensor

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors.norm_clipping import NormClipping
from fedseg_mm.processors.update_processor import ProcessorContext
from fedseg_mm.registry import UPDATE_PROCESSORS
from fedseg_mm.seeding import derive_seed
from fedseg_mm.validation import check_number


@UPDATE_PROCESSORS.register_module()
class GaussianMechanism(NormClipping):
    r"""DP-FedAvg (McMahan et al., ICLR 2018, algorithm 1), without its accounting.

    Every update is clipped to length :math:`S` as by :class:`NormClipping`,
    and the server adds noise to each entry of the mean over the n clients of
    the cohort:

    .. math::
        \bar\Delta \leftarrow \frac{1}{n} \sum_{k \in S_t} \Delta_k + \mathcal N(0, \sigma^2 I),
        \qquad \sigma = \frac{z S}{n}

    All updates must count 1 in the mean; with weights such as :math:`n_k` one
    client could move it by more than :math:`S / n`.

    This is the mechanism alone and no privacy guarantee, which
    :class:`DifferentialPrivacy` gives: a guarantee further
    needs an accountant, a denominator that does not depend on who took part,
    and cryptographically secure random numbers. By default the noise follows
    from the run's seed, so whoever knows that seed can subtract it. No later
    processor may lengthen an update: :class:`Int8Compression` and error
    feedback in :class:`TopKCompression` do.

    Noise is added to all tensors of the delta, because all of them are part
    of the clipped vector. Noise can make averaged variances of batch
    normalisation negative: keep the statistics out of the delta
    (``batch_norm='local_statistics'``), or use GroupNorm.

    Metrics: those of :class:`NormClipping`, and ``noise_std``, :math:`\sigma`.

    Args:
        noise_multiplier (float): :math:`z`, at least 0.
        max_norm (float): :math:`S`, above 0.
        reproducible (bool): Derive the noise from the run's seed and the
            round; False seeds it anew from the operating system every time, so
            that two runs differ. Defaults to True.

    Raises:
        FedSegError: An argument is not as described.
    """

    needs_equal_weights = True

    def __init__(self, noise_multiplier: float, max_norm: float, reproducible: bool = True) -> None:
        super().__init__(max_norm)
        self.noise_multiplier = check_number(self._key('noise_multiplier'), noise_multiplier, least=0)
        if not isinstance(reproducible, bool):
            raise FedSegError(f'{self._key("reproducible")} must be True or False, but is {reproducible!r}')
        self.reproducible = reproducible
        self._noise_std: float | None = None

    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        """Clip the delta in place.

        Raises:
            FedSegError: The update does not count 1 in the mean.
        """
        if context.weight != 1:
            raise FedSegError(f'federated.processors: {type(self).__name__} needs all updates to have weight 1 in the '
                              f'mean, but that of client {context.client} has {context.weight:g}: use an algorithm '
                              'that averages clients uniformly')
        return super().at_client(delta, context)

    def at_server(self, delta: dict[str, Tensor], total: float, round: int) -> dict[str, Tensor]:
        """Add the noise in place."""
        std = self._noise_std = self.noise_multiplier * self.max_norm / total
        if not std or not delta:
            return delta
        generator = torch.Generator().manual_seed(self._noise_seed(round))
        tensors = list(delta.values())
        sizes = [tensor.numel() for tensor in tensors]
        # drawn on the CPU: the same numbers in every process and on every device; once per round, so speed matters less
        noise = torch.randn(sum(sizes), generator=generator).to(tensors[0].device)
        torch._foreach_add_(tensors, [part.view(tensor.shape) for part, tensor in zip(noise.split(sizes), tensors)],
                            alpha=std)
        return delta

    def metrics(self) -> dict[str, float]:
        figures = super().metrics()
        if self._noise_std is not None:
            figures['noise_std'], self._noise_std = self._noise_std, None
        return figures

    def _noise_seed(self, round: int) -> int:
        if not self.reproducible:
            seed = torch.tensor(secrets.randbits(32))
            broadcast(seed)  # every process adds the first one's noise
            return int(seed)
        if self.seed is None:
            raise RuntimeError(f'{type(self).__name__}.setup must be called with the seed of the run before a round')
        return derive_seed(self.seed, 'noise', round)
