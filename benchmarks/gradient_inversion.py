"""What a single update tells: an image is computed back from it, and what clipping and noise do to that.

    python benchmarks/gradient_inversion.py
    python benchmarks/gradient_inversion.py --picture docs/figures/gradient_inversion.png

A client takes one step of SGD on one street scene of 16x16 pixels with a small network and sends the change of the
weights. The attacker knows the network, the weights and the label map, and looks by L-BFGS (Zhu et al., "Deep Leakage
from Gradients", NeurIPS 2019, algorithm 1) for the image whose gradient points the same way (cosine distance, as in
Geiping et al., "Inverting Gradients", NeurIPS 2020, equation 4). The update is sent as it is, clipped to a fifth of its
length, and clipped and with noise as of a differentially private round.
Printed is the peak signal-to-noise ratio in dB, beside that of an image of the mean colour: the higher, the closer.
"""
import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import fedseg_mm  # noqa: F401  makes mmseg importable
from fedseg_mm.datasets.street_scene_painter import CLASSES

SIZE = 16
CLIP = 0.2
MULTIPLIERS = (0.01, 0.1, 1.0)


def scene() -> tuple[Tensor, Tensor]:
    """One street scene, as floats of 0 to 1 of shape (1, 3, H, W), and its label of shape (1, H, W)."""
    from fedseg_mm.datasets.transforms.load_street_scene import paint_scene, scene_path
    image, label = paint_scene(scene_path('train', 3, (64, 48), 0))
    image = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255
    label = torch.from_numpy(label.copy())[None, None].double()
    return (functional.interpolate(image, (SIZE, SIZE), mode='area'),
            functional.interpolate(label, (SIZE, SIZE), mode='nearest')[:, 0].long())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Sigmoid(), nn.Conv2d(16, 16, 3, padding=1), nn.Sigmoid(),
                         nn.Conv2d(16, len(CLASSES), 1)).double()


def gradient(model: nn.Module, image: Tensor, label: Tensor, create_graph: bool = False) -> Tensor:
    loss = functional.cross_entropy(model(image), label, ignore_index=255)
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()),
                                                                   create_graph=create_graph)])


def invert(model: nn.Module, update: Tensor, label: Tensor, steps: int) -> Tensor:
    """The image whose gradient points against the update."""
    image = torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64)
    image = (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=steps, history_size=50, tolerance_grad=0, tolerance_change=0,
                                  line_search_fn='strong_wolfe')

    def distance() -> Tensor:
        optimizer.zero_grad()
        found = 1 - functional.cosine_similarity(gradient(model, image, label, create_graph=True), -update, dim=0)
        found.backward()
        return found

    optimizer.step(distance)
    return image.detach().clamp(0, 1)


def psnr(image: Tensor, truth: Tensor) -> float:
    return float(-10 * torch.log10((image - truth).square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--picture', type=Path, metavar='FILE')
    args = parser.parse_args()
    torch.set_num_threads(1)
    (truth, label), model = scene(), network()
    update = -0.1 * gradient(model, truth, label)
    clipped = update * CLIP
    noise = torch.randn(update.shape, generator=torch.Generator().manual_seed(2))
    sent = {'as it is': update, 'clipped': clipped, **{
        f'clipped, noise multiplier {z:g}': clipped + z * clipped.norm() * noise for z in MULTIPLIERS}}
    mean = truth.mean((2, 3), keepdim=True).expand_as(truth)
    images = {'truth': truth, 'mean colour': mean}
    print(f'{"mean colour":32s} {psnr(mean, truth):5.1f} dB')
    for name, one in sent.items():
        images[name] = invert(model, one, label, args.steps)
        print(f'{name:32s} {psnr(images[name], truth):5.1f} dB', flush=True)
    if args.picture:
        from matplotlib.figure import Figure
        figure = Figure(figsize=(2 * len(images), 2.4), layout='constrained')
        for axes, (name, image) in zip(figure.subplots(1, len(images)), images.items()):
            axes.imshow(image[0].permute(1, 2, 0).flip(2), interpolation='nearest')
            axes.set_title(name, fontsize=7)
            axes.axis('off')
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.picture, dpi=80)


if __name__ == '__main__':
    main()
