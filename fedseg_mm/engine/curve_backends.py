"""What MMEngine's backends for curves lack: rounds as steps, and names that they take."""
import re

from mmengine.visualization import MLflowVisBackend, Visualizer, WandbVisBackend


class _CountingWandbVisBackend(WandbVisBackend):
    """MMEngine's backend of Weights & Biases, with the step that it leaves out.

    Without it, every call is a step of its own, and the figures of one round
    are spread over several. What is logged with the same step is one row,
    which the first figure of a later step completes.
    """

    def add_image(self, name, image, step=0, **kwargs) -> None:
        self.experiment.log({name: self.experiment.Image(image)}, step=step)

    def add_scalar(self, name, value, step=0, **kwargs) -> None:
        self.experiment.log({name: value}, step=step)

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs) -> None:
        self.experiment.log(dict(scalar_dict), step=step)


class _NamingMLflowVisBackend(MLflowVisBackend):
    """MMEngine's backend of MLflow, which ends the run at a name such as ``client/St Mary's/loss``."""

    def add_scalar(self, name, value, step=0, **kwargs) -> None:
        super().add_scalar(self._allowed(name), value, step, **kwargs)

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs) -> None:
        super().add_scalars({self._allowed(name): value for name, value in scalar_dict.items()}, step, **kwargs)

    @staticmethod
    def _allowed(name: str) -> str:
        """MLflow allows letters, digits, ``_``, ``-``, ``.``, spaces and slashes."""
        return re.sub(r'[^/\w.\- ]', '_', name)


def prepare_backends(visualizer: Visualizer) -> None:
    """Have every backend of a federated run's visualizer count rounds and take the names of clients and classes."""
    for backend in visualizer._vis_backends.values():
        if type(backend) is WandbVisBackend:
            backend.__class__ = _CountingWandbVisBackend
        elif type(backend) is MLflowVisBackend:
            backend.__class__ = _NamingMLflowVisBackend
