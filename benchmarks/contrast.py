"""Prototypes and pixel contrast against the naive way; 8x256x64x64 embeddings, 19 classes, 380 prototypes.

One step of FedSeg: the prototypes of a batch, then the contrast of at most 4,096 anchors with 380 prototypes, forward
and backward. The naive way makes prototypes by a dense product of one-hot labels and embeddings, NxKxCxHxW values,
moves the channels last, draws anchors in a loop over the classes, and takes exp() of all similarities.
"""
from statistics import median

import torch
import torch.nn.functional as F
from measure import Result, interleaved, main, peak_bytes, ratios, table

from fedseg_mm.algorithms.fedseg import image_prototypes
from fedseg_mm.models import PixelContrastLoss

CLASSES, ANCHORS, TEMPERATURE = 19, 4096, 0.07


def naive_prototypes(embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    members = F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).to(embeddings.dtype)
    sums = (members[:, :, None] * embeddings[:, None]).sum((3, 4))
    image, cls = torch.nonzero(members.sum((2, 3)), as_tuple=True)
    return F.normalize(sums[image, cls], dim=1), cls


def naive_contrast(embeddings: torch.Tensor, labels: torch.Tensor, prototypes: torch.Tensor,
                   prototype_labels: torch.Tensor) -> torch.Tensor:
    pixels = embeddings.permute(0, 2, 3, 1).reshape(-1, embeddings.shape[1])
    labels = labels.flatten()
    present = labels.unique()
    total = 0
    number = 0
    for cls in present.tolist():
        own = torch.nonzero(labels == cls)[:, 0]
        own = own[torch.randperm(len(own), device=own.device)[:ANCHORS // len(present)]]
        similarity = (pixels[own] @ prototypes.T / TEMPERATURE).exp()
        positive = similarity[:, prototype_labels == cls]
        negative = similarity[:, prototype_labels != cls].sum(1, keepdim=True)
        total = total - (positive / (positive + negative)).log().mean(1).sum()
        number += len(own)
    return total / number


def measure(device: str) -> dict[str, Result]:
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(8, 256, 64, 64, generator=generator), dim=1).to(device).requires_grad_()
    labels = torch.randint(0, CLASSES, (8, 64, 64), generator=generator).to(device)
    prototypes = F.normalize(torch.randn(380, 256, generator=generator), dim=1).to(device)
    prototype_labels = (torch.arange(380) % CLASSES).to(device)
    loss = PixelContrastLoss(TEMPERATURE, ANCHORS)

    def ours():
        with torch.no_grad():
            image_prototypes(embeddings, labels, CLASSES)
        torch.autograd.grad(loss(embeddings, labels, prototypes, prototype_labels), embeddings)

    def naive():
        with torch.no_grad():
            naive_prototypes(embeddings, labels)
        torch.autograd.grad(naive_contrast(embeddings, labels, prototypes, prototype_labels), embeddings)

    with torch.no_grad():
        pairs = zip(naive_prototypes(embeddings, labels), image_prototypes(embeddings, labels, CLASSES))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs), 'the two make other prototypes'
        values = [function(embeddings, labels, prototypes, prototype_labels).item()
                  for function in (loss, naive_contrast)]
        assert abs(values[0] / values[1] - 1) < 0.02, 'the two are not the same loss, but for the draw of anchors'
    slow, fast = interleaved(naive, ours, repeats=9, device=device)
    held = [peak_bytes(naive, device), peak_bytes(ours, device)]
    table('Prototypes of a batch, and contrast forward and backward', ['', 'ms', 'MiB'], [
        [name, f'{1e3 * median(times):.1f}', f'{size / 2**20:.0f}']
        for name, times, size in zip(('naive', 'ours'), (slow, fast), held)])
    return {
        'contrast_naive_speedup': Result.of(ratios(slow, fast), 5, at_least=True),
        'contrast_naive_memory': Result(held[0] / held[1], 10, (held[0] / held[1], ) * 2, at_least=True),
    }


if __name__ == '__main__':
    main(__doc__, measure)
