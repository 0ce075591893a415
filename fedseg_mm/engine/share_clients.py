"""Which process trains which clients of a cohort."""
from collections.abc import Sequence


def share_clients(cohort: Sequence[int], costs: Sequence[int], num_processes: int) -> list[list[int]]:
    """Give every process clients to train, so that all end at about the same time.

    Clients with the most batches come first, each to the process with the
    least to do so far (Graham, 1969). The shares follow from the arguments alone:
    every process computes the same.

    Args:
        cohort (Sequence[int]): The clients.
        costs (Sequence[int]): Their batches.
        num_processes (int): Number of processes.

    Returns:
        list[list[int]]: The clients of each process, in the cohort's order.
    """
    load = [0] * num_processes
    shares: list[list[int]] = [[] for _ in range(num_processes)]
    for place in sorted(range(len(cohort)), key=lambda place: -costs[place]):
        process = load.index(min(load))
        load[process] += costs[place]
        shares[process].append(place)
    return [[cohort[place] for place in sorted(share)] for share in shares]
