"""Randomness that is derived, never drawn from a global generator.

Every random choice of a run has its own seed, derived from the run's seed,
the choice's purpose and its place (round, client, …). A choice then depends
neither on what was drawn before it nor on where or when it is made, which is
what makes a resumed run, or one with other workers, equal to the first.
"""
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *place: int) -> int:
    """The 32-bit seed of one random choice.

    Args:
        seed (int): The seed of the run.
        purpose (str): What is chosen, e.g. ``'cohort'``.
        place (int): Where it is chosen, e.g. round and client.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *place]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def derived_generator(seed: int, purpose: str, *place: int) -> np.random.RandomState:
    """A generator of its own for one random choice.

    ``RandomState``, because numpy keeps its streams the same in all versions.
    """
    return np.random.RandomState(derive_seed(seed, purpose, *place))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch (CPU), and put them back.

    mmcv's transforms draw from these.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(torch_state)
