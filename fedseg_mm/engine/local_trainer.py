"""The one place where a client trains."""
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor

from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.datasets.client_stream import ClientStream
from fedseg_mm.models import BackCELoss, hide_unannotated_pixels
from fedseg_mm.seeding import derive_seed
from fedseg_mm.structures import Broadcast, ClientUpdate


class LocalTrainer:
    """Trains any client, one after the other, with one warm model and optimizer.

    Args:
        model (BaseModel): An MMSegmentation segmentor, on its device.
        optim_wrapper (OptimWrapper): MMEngine's, built for ``model``.
        stream (ClientStream): The clients' batches.
        seed (int): Seed of the run.
    """

    def __init__(self, model: BaseModel, optim_wrapper: OptimWrapper, stream: ClientStream, seed: int) -> None:
        self.model = model
        self.optim_wrapper = optim_wrapper
        self.stream = stream
        self.seed = seed
        stream.batch_sampler.seed = seed
        self.back_ce_losses = [module for module in model.modules() if isinstance(module, BackCELoss)]
        self._hiding = hide_unannotated_pixels(model)

    def fit(self, client: int, broadcast: Broadcast) -> ClientUpdate:
        """Train one client from the broadcast weights.

        The result depends on the arguments and the run's seed alone: not on
        the clients before, the number of loader workers or the process (but
        for the scale of float16's losses, which the clients share).

        Args:
            client (int): The client's id.
            broadcast (Broadcast): What the server sent.

        Returns:
            ClientUpdate: Its weights are the model's live tensors.

        Raises:
            FedSegError: An image cannot be loaded; names the file.
        """
        shard = self.stream.batch_sampler.partition.clients[client]
        num_steps = self.stream.batch_sampler.num_batches(client)
        load_weights(self.model, broadcast.weights)
        self._renew_optimizer()
        self.optim_wrapper.initialize_count_status(self.model, 0, num_steps)
        for loss in self.back_ce_losses:
            loss.set_annotated_classes(shard.classes)

        self.model.train()
        torch.manual_seed(derive_seed(self.seed, 'training', broadcast.round, client))
        sums: dict[str, Tensor] = {}
        for batch in self.stream.batches(broadcast.round, client):
            log_vars = self.model.train_step(batch, optim_wrapper=self.optim_wrapper)
            for name, value in log_vars.items():
                value = torch.as_tensor(value).detach()
                sums[name] = sums[name] + value if name in sums else value
        self._renew_optimizer()
        for loss in self.back_ce_losses:
            loss.set_annotated_classes(None)
            loss.set_unannotated(None)
        metrics, is_finite = self._metrics(sums, num_steps)
        return ClientUpdate(client, self.model.state_dict(), len(shard.indices), num_steps, metrics, is_finite)

    def close(self) -> None:
        """Leave the model as it was found."""
        self._hiding.remove()

    def _renew_optimizer(self) -> None:
        """Equals a new optimizer bit for bit, at none of its cost."""
        self.optim_wrapper.optimizer.state.clear()
        self.optim_wrapper.zero_grad()

    def _metrics(self, sums: dict[str, Tensor], num_steps: int) -> tuple[dict[str, float], bool]:
        """Means over the batches, and whether loss and weights are finite, with one device sync."""
        weights = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
        greatest = torch.stack([norm.float() for norm in torch._foreach_norm(weights, ord=float('inf'))]).max()
        # the maximum of numbers and NaN is NaN
        *means, greatest = torch.stack([*(value.float() / num_steps for value in sums.values()), greatest]).tolist()
        metrics = dict(zip(sums, means))
        finite = torch.isfinite(torch.tensor([metrics.get('loss', 0.0), greatest]))
        return metrics, bool(finite.all())
