"""BackCE against F.cross_entropy on the same scores, and against BackCE the naive way; forward and backward.

CPU: 4x19x256x512; GPU: 8x19x512x1024. With 1, 4, 9 and 18 annotated classes; a result is the worst of these. The naive
way takes probabilities, gathers them class by class, adds up those that are not annotated, concatenates, and takes the
logarithm.
"""
from statistics import median

import torch
import torch.nn.functional as F
from measure import Result, interleaved, main, peak_bytes, ratios, table

from fedseg_mm.models import BackCELoss

CLASSES = 19


def naive_back_ce(logits: torch.Tensor, label: torch.Tensor, annotated: set[int]) -> torch.Tensor:
    """BackCE as one writes it down: -log of a probability, background's being a sum."""
    probability = logits.softmax(1)
    planes, background, target = [], 0, torch.full_like(label, len(annotated))
    for cls in range(logits.shape[1]):
        plane = probability[:, cls]
        if cls in annotated:
            target[label == cls] = len(planes)
            planes.append(plane)
        else:
            background = background + plane
    merged = torch.stack([*planes, background], 1)
    return F.nll_loss(merged.log(), target)


class Case:
    """The three losses on the same scores, so many classes annotated."""

    def __init__(self, logits: torch.Tensor, label: torch.Tensor, annotated: int) -> None:
        self.logits, self.label, self.annotated = logits, label, annotated
        self.partial = torch.where(label < annotated, label, 254)
        self.loss = BackCELoss()
        self.loss.set_annotated_classes(range(annotated))

    def _gradient(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, self.logits)[0]

    def ours(self) -> torch.Tensor:
        return self._gradient(self.loss(self.logits, self.partial))

    def cross_entropy(self) -> torch.Tensor:
        return self._gradient(F.cross_entropy(self.logits, self.label, ignore_index=255))

    def naive(self) -> torch.Tensor:
        return self._gradient(naive_back_ce(self.logits, self.partial, set(range(self.annotated))))

    def check(self) -> None:
        """Ours and the naive way are one loss: that of float64."""
        scores = self.logits.detach().double().requires_grad_()
        exact, = torch.autograd.grad(naive_back_ce(scores, self.partial, set(range(self.annotated))), scores)
        for gradient in (self.ours(), self.naive()):  # p - 1 of a sure pixel has the rounding of p, as always
            assert torch.allclose(gradient.double(), exact, rtol=1e-3, atol=5e-6 * exact.abs().max())


def measure(device: str) -> dict[str, Result]:
    shape = (8, CLASSES, 512, 1024) if device == 'cuda' else (4, CLASSES, 256, 512)
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
    label = torch.randint(0, CLASSES, (shape[0], *shape[2:]), generator=generator).to(device)
    rows, time_ratios, memory_ratios, speedups = [], {}, {}, {}
    for number in (1, 4, 9, 18):
        case = Case(logits, label, number)
        case.check()
        times = interleaved(case.ours, case.cross_entropy, repeats=15, device=device)
        slow, fast = interleaved(case.naive, case.ours, repeats=4, device=device, warm_up=0)
        time_ratios[number], speedups[number] = ratios(*times), ratios(slow, fast)
        held = [peak_bytes(function, device) for function in (case.ours, case.cross_entropy)]
        memory_ratios[number] = held[0] / held[1]
        medians = [1e3 * median(t) for t in (*times, slow)]
        rows.append([number, *(f'{ms:.1f}' for ms in medians), *(f'{size / 2**20:.0f}' for size in held)])
    table(f'Forward and backward of {"x".join(map(str, shape))}',
          ['annotated', 'BackCE ms', 'F.cross_entropy ms', 'naive ms', 'BackCE MiB', 'F.cross_entropy MiB'], rows)

    return {
        'backce_vs_ce_time': Result.of(max(time_ratios.values(), key=median), 1.3),
        'backce_vs_ce_memory': Result(max(memory_ratios.values()), 1.1,
                                      (min(memory_ratios.values()), max(memory_ratios.values()))),
        'backce_naive_speedup': Result.of(min(speedups.values(), key=median), 3, at_least=True),
    }


if __name__ == '__main__':
    main(__doc__, measure)
