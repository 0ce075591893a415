"""One axis for all curves of a run: its rounds."""
from mmengine.visualization import Visualizer, WandbVisBackend


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


def count_rounds(visualizer: Visualizer) -> None:
    """Have every backend of a federated run's visualizer count rounds; those that take a step do."""
    for backend in visualizer._vis_backends.values():
        if type(backend) is WandbVisBackend:
            backend.__class__ = _CountingWandbVisBackend
