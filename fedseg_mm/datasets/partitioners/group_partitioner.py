"""One client per city, hospital, camera, …"""
import re

import numpy as np

from fedseg_mm.datasets.partitioners.partitioner import Partitioner
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import PARTITIONERS


@PARTITIONERS.register_module()
class GroupPartitioner(Partitioner):
    """Make a client of the images whose path names the same group.

    Args:
        pattern (str): Regular expression that is searched in the image's path
            below the data folder; its first group, or all that it matches, is
            the client. ``r'train/(\\w+)/'`` gives Cityscapes' 18 cities.
        classes_per_client (int, optional): Annotated classes per client.
            Defaults to None: all.
        seed (int): The same seed gives the same partition on every machine.
            Defaults to 0.

    Raises:
        FedSegError: The pattern is no regular expression, or a path does not
            match it.
    """

    def __init__(self, pattern: str, classes_per_client: int | None = None, seed: int = 0) -> None:
        super().__init__(1, classes_per_client, seed)
        try:
            if not isinstance(pattern, str):
                raise TypeError('it is no text')
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise FedSegError(f'`pattern` of GroupPartitioner is not a regular expression: {pattern!r} ({error})'
                              ) from error
        self.pattern = pattern

    def split(self, usable, presence, image_names, rng) -> list[tuple[str, np.ndarray]]:
        pattern = re.compile(self.pattern)
        groups: dict[str, list[int]] = {}
        for index in usable.tolist():
            found = pattern.search(image_names[index])
            group = found[1 if pattern.groups else 0] if found else None
            if group is None:
                raise FedSegError(f'the pattern {self.pattern!r} of GroupPartitioner does not match the image '
                                  f'{image_names[index]}')
            groups.setdefault(group, []).append(index)
        return [(name, np.array(groups[name])) for name in sorted(groups)]
