"""Normal numbers that nobody can predict."""
import math
import os

import numpy as np
import torch
from torch import Tensor

#: Numbers that are made at a time, so that a large model needs little memory beside the noise itself.
CHUNK = 1 << 20


def secure_normal(size: int) -> Tensor:
    r"""Standard normal numbers from the operating system's secure generator.

    Box and Muller's transform of pairs of uniform numbers with 53 random bits
    each. They are floating point numbers: an adversary who sees all bits of a
    sum may learn more than the theory allows (Mironov, "On significance of the
    least significant bits for differential privacy", CCS 2012).

    Args:
        size (int): How many.

    Returns:
        Tensor: float32 (size, ), on the CPU.
    """
    noise = torch.empty(size)
    for begin in range(0, size, CHUNK):
        number = min(CHUNK, size - begin)
        half = (number + 1) // 2
        bits = np.frombuffer(os.urandom(16 * half), np.uint64).reshape(2, half) >> np.uint64(11)
        radius = np.sqrt(-2 * np.log((bits[0] + 1.0) * 2.0 ** -53))  # of (0, 1]: no logarithm of zero
        angle = 2 * math.pi * 2.0 ** -53 * bits[1]
        pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        noise[begin:begin + number] = torch.from_numpy(pairs[:number])
    return noise
