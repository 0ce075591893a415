"""Folding one update into the running mean against one copy of the model, and against a sum in float64.

The model is a ResNet-18 with an FCN head, about 50 MB.
"""
from statistics import median

import torch
from measure import Result, interleaved, main, peak_bytes, ratios, table
from peers import fifty_megabytes

from fedseg_mm.aggregators import WeightedMean


def measure(device: str) -> dict[str, Result]:
    weights = {name: tensor.to(device) for name, tensor in fifty_megabytes().state_dict().items()}
    other = {name: tensor.clone() for name, tensor in weights.items()}
    floating = [name for name, tensor in weights.items() if tensor.is_floating_point()]
    sums = [weights[name].double() for name in floating]
    mean = WeightedMean()
    mean.add(other, 1)

    def copy():
        torch._foreach_copy_(list(other.values()), list(weights.values()))

    def fold():
        mean.add(weights, 3)

    def fold_in_double():
        torch._foreach_add_(sums, [weights[name] for name in floating], alpha=3)

    copied, folded, doubled = interleaved(copy, fold, fold_in_double, repeats=25, device=device)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    table(f'A model of {size / 1e6:.1f} MB, {len(weights)} tensors', ['', 'ms', 'MiB held meanwhile'], [
        [name, f'{1e3 * median(times):.2f}', f'{peak_bytes(function, device) / 2**20:.0f}']
        for name, times, function in (('one copy', copied, copy), ('fold into a float32 mean', folded, fold),
                                      ('add to a float64 sum', doubled, fold_in_double))])
    print(f'A float64 sum takes {median(ratios(doubled, copied)):.2f} copies.')
    return {'fold_vs_copy': Result.of(ratios(folded, copied), 2)}


if __name__ == '__main__':
    main(__doc__, measure)
