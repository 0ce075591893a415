"""What the benchmarks share: interleaved timing, peak memory, results as table and JSON."""
import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from prettytable import PrettyTable

from fedseg_mm.files import write_json
from fedseg_mm.provenance import cpu_model


@dataclass(frozen=True)
class Result:
    """One figure and its goal.

    Args:
        value (float): The figure.
        goal (float): What it is to reach.
        spread (tuple[float, float]): First and third quartile of what was
            measured, or least and greatest where the script says so.
        at_least (bool): Whether the goal is a lower limit. Defaults to False.
    """
    value: float
    goal: float
    spread: tuple[float, float]
    at_least: bool = False

    @classmethod
    def of(cls, values: list[float], goal: float, at_least: bool = False) -> 'Result':
        """The median of what was measured several times, and its quartiles."""
        first, middle, third = statistics.quantiles(values, n=4)
        return cls(middle, goal, (first, third), at_least)

    @property
    def holds(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def as_dict(self) -> dict:
        return dict(value=round(self.value, 4), goal=self.goal, holds=self.holds,
                    spread=[round(end, 4) for end in self.spread])


def seconds(function: Callable[[], object], device: str = 'cpu') -> float:
    """Wall time of one call, the device's work included."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(*functions: Callable[[], object], repeats: int, device: str = 'cpu', warm_up: int = 2
                ) -> list[list[float]]:
    """Times of several functions, called in turn so that a slow spell of the machine meets all of them.

    Returns:
        list[list[float]]: Seconds, for each function one per repeat.
    """
    for _ in range(warm_up):
        for function in functions:
            function()
    times: list[list[float]] = [[] for _ in functions]
    gc.collect()
    for _ in range(repeats):
        for kept, function in zip(times, functions):
            kept.append(seconds(function, device))
    return times


def ratios(first: list[float], second: list[float]) -> list[float]:
    """First over second, of the calls that followed one another."""
    return [a / b for a, b in zip(first, second)]


def peak_bytes(function: Callable[[], object], device: str = 'cpu') -> int:
    """Bytes that torch holds at most during a call, beyond what it held before."""
    function()
    if device == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            most = max(most, held)
    return most


def machine(device: str = 'cpu') -> str:
    """The machine in a line."""
    gpu = f', {torch.cuda.get_device_name()}' if device == 'cuda' else ''
    return (f'{os.cpu_count()} x {cpu_model()}{gpu}; Python {platform.python_version()}, torch {torch.__version__}, '
            f'{torch.get_num_threads()} threads')


def table(title: str, columns: list[str], rows: list[list]) -> None:
    """Print figures for people."""
    drawn = PrettyTable(columns)
    drawn.align = 'r'
    drawn.align[columns[0]] = 'l'
    drawn.add_rows(rows)
    print(f'\n{title}\n{drawn}')


def print_results(results: dict[str, dict]) -> None:
    table('Results', ['id', 'value', 'spread', 'goal', 'holds'],
          [[name, f'{one["value"]:.3g}', ' to '.join(f'{end:.3g}' for end in one['spread']), one['goal'],
            'yes' if one['holds'] else 'NO'] for name, one in results.items()])


def main(description: str, measure: Callable[[str], dict[str, Result]], devices: tuple[str, ...] = ('cpu', 'cuda'),
         threads: int | None = None) -> None:
    """The command line of one benchmark.

    Args:
        description (str): The script's docstring.
        measure (Callable): Takes the device, prints its tables and returns
            its results by id.
        devices (tuple[str]): Devices that it can run on.
        threads (int, optional): Threads of torch that the question is about.
            Defaults to None: as torch chooses.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=devices, default='cpu')
    parser.add_argument('--json', type=Path, metavar='FILE', help='where the results go, beside the tables')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('there is no GPU: leave out --device cuda')
    if threads is not None:
        torch.set_num_threads(threads)
    print(machine(args.device))
    results = {name: result.as_dict() for name, result in measure(args.device).items()}
    print_results(results)
    if args.json:
        write_json(args.json, results)
