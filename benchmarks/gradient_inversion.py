"""What an update shows of the image that it was trained on, and what clipping and noise do to that.

A client with one image takes one step of SGD with a small convolutional model. An attacker, who has the model, the
label map and the update, looks for an image whose gradient points in the same direction (Geiping et al., NeurIPS 2020:
cosine distance of the gradients, plus total variation, by Adam), first from the update as it is, then from what this
package's NormClipping and GaussianMechanism leave of it. The model has no batch normalisation and a smooth activation,
and the batch is one image: large batches, several steps and deep models make it harder, and none of them is a
guarantee.
"""
import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from prettytable import PrettyTable
from torch import Tensor, nn

from fedseg_mm.datasets.labels import VOID
from fedseg_mm.datasets.transforms.load_street_scene import paint_scene, scene_path
from fedseg_mm.processors import GaussianMechanism, NormClipping, ProcessorContext

SIZE = (48, 32)
CLASSES = 10
MAX_NORM = 0.1
#: Noise multipliers z: each entry gets noise of standard deviation z * MAX_NORM, as in a cohort of this client alone.
MULTIPLIERS = (1e-4, 1e-3, 1e-2)
#: Weight of total variation in the attack, by noise multiplier: the more noise, the smoother the image looked for.
SMOOTHNESS = {0.0: 1e-4, 1e-4: 1e-3, 1e-3: 1e-2, 1e-2: 1e-1}


def load_scene(index: int) -> tuple[Tensor, Tensor]:
    """An image (1, 3, H, W) in [0, 1] in BGR, and its label (1, H, W)."""
    image, label = paint_scene(scene_path('train', index, (160, 120)))
    image = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    label = cv2.resize(label, SIZE, interpolation=cv2.INTER_NEAREST)
    return torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None], torch.from_numpy(label.astype(int))[None]


def make_model() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 5, stride=2, padding=2), nn.Sigmoid(), nn.Conv2d(64, 64, 3, padding=1), nn.Sigmoid(),
        nn.Conv2d(64, 64, 3, padding=1), nn.Sigmoid(), nn.Conv2d(64, CLASSES, 1))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


class Client:
    """Computes what a client with one image would send.

    Args:
        model (nn.Module): The global model.
        label (Tensor): The image's label (1, H, W).
    """

    def __init__(self, model: nn.Module, label: Tensor) -> None:
        self.model = model
        self.label = label
        self.names = [name for name, _ in model.named_parameters()]

    def gradients(self, image: Tensor, **how) -> tuple[Tensor, ...]:
        scores = F.interpolate(self.model(image), size=self.label.shape[1:], mode='bilinear')
        loss = F.cross_entropy(scores, self.label, ignore_index=VOID)
        return torch.autograd.grad(loss, list(self.model.parameters()), **how)

    def update(self, image: Tensor, lr: float = 0.1) -> dict[str, Tensor]:
        """Local minus received weights after one step of SGD."""
        return {name: -lr * gradient for name, gradient in zip(self.names, self.gradients(image))}


def clipped(update: dict[str, Tensor]) -> dict[str, Tensor]:
    return NormClipping(MAX_NORM).at_client(_copy(update), _context(update))


def noisy(update: dict[str, Tensor], multiplier: float) -> dict[str, Tensor]:
    mechanism = GaussianMechanism(multiplier, MAX_NORM)
    mechanism.setup(0)
    return mechanism.at_server(mechanism.at_client(_copy(update), _context(update)), total=1, round=0)


def _copy(update: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in update.items()}


def _context(update: dict[str, Tensor]) -> ProcessorContext:
    return ProcessorContext(0, 0, 0, frozenset(update), 1)


def reconstruct(client: Client, update: dict[str, Tensor], steps: int, smoothness: float) -> Tensor:
    """The image (1, 3, H, W) whose gradient points most nearly against the update."""
    wanted = [-tensor for tensor in update.values()]
    length = _length(wanted)
    guess = (0.5 + 0.1 * torch.randn(1, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(0)))
    guess.requires_grad_(True)
    optimizer = torch.optim.Adam([guess], lr=0.05)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4, steps * 9 // 10], 0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        found = client.gradients(guess, create_graph=True)
        product = torch.stack([(one * other).sum() for one, other in zip(found, wanted)]).sum()
        variation = guess.diff(dim=-1).abs().mean() + guess.diff(dim=-2).abs().mean()
        (1 - product / (length * _length(found)) + smoothness * variation).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
    return guess.detach()


def _length(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([(tensor * tensor).sum() for tensor in tensors]).sum().sqrt()


def peak_signal_to_noise(image: Tensor, guess: Tensor) -> float:
    """PSNR in dB of values in [0, 1]."""
    return float(-10 * torch.log10(((image - guess)**2).mean()))


def attack(scene: int, steps: int) -> dict[str, Tensor]:
    """What was found, by what was sent; the image itself first."""
    torch.manual_seed(0)
    image, label = load_scene(scene)
    client = Client(make_model(), label)
    update = client.update(image)
    sent = {'update as it is': (update, 0.0), f'clipped to {MAX_NORM}': (clipped(update), 0.0)}
    sent.update({f'and noise, z = {z:g}': (noisy(update, z), z) for z in MULTIPLIERS})
    found = {'image': image}
    for name, (one, z) in sent.items():
        found[name] = reconstruct(client, one, steps, SMOOTHNESS[z])
    return found


def draw(found: dict[str, Tensor], path: Path) -> None:
    figure = Figure(figsize=(2.3 * len(found), 2.0), layout='constrained')
    for axes, (name, image) in zip(figure.subplots(1, len(found)), found.items()):
        axes.imshow(image[0].flip(0).permute(1, 2, 0).numpy(), interpolation='nearest')
        axes.set_axis_off()
        axes.set_title(name, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Look for the image that an update was trained on.')
    parser.add_argument('--scene', type=int, default=3, help='which of the embedded street scenes (default: 3)')
    parser.add_argument('--steps', type=int, default=1200, help='steps of the attack (default: 1200)')
    parser.add_argument('--out', type=Path, default=Path('docs/figures/gradient_inversion.png'),
                        help='the picture (default: docs/figures/gradient_inversion.png)')
    args = parser.parse_args(argv)
    found = attack(args.scene, args.steps)
    table = PrettyTable(['what was sent', 'PSNR (dB)'])
    table.align = 'l'
    for name, image in list(found.items())[1:]:
        table.add_row([name, f'{peak_signal_to_noise(found["image"], image):.1f}'])
    grey = torch.full_like(found['image'], 0.5)
    table.add_row(['(grey, for comparison)', f'{peak_signal_to_noise(found["image"], grey):.1f}'])
    print(table)
    draw(found, args.out)
    print(f'Picture: {args.out}')


if __name__ == '__main__':
    main()
