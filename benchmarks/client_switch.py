"""What it takes to go from one client to the next, outside of the training steps, with a model of 50 MB.

A round of clients with two batches of small images each; of each client's time, from before its weights are loaded to
after its update was folded in, the steps themselves and the waiting for images are taken out. The result is how many
times as long as one copy of the model, taken right after the switch, that is: what the machine's memory allows is about
3.5, as the weights are copied into the model, its momentum is set to zero, and the update is read once to see whether
it is finite and folded into the mean.
"""
import statistics
import time

import torch
from measure import Result, main, table
from peers import config, federated_config, federation, fifty_megabytes_config, image_folder

CLIENTS, ROUNDS = 10, 4


def measure(device: str) -> dict[str, Result]:
    switches: list[float] = []
    copies: list[float] = []
    with image_folder(2 * CLIENTS, (40, 40)) as folder:
        common = {**config(folder, (32, 32), 2, 0), 'model': fifty_megabytes_config()}
        loop = federation(federated_config(common, CLIENTS, CLIENTS, local_epochs=2))
        backend, algorithm = loop.federation.backend, loop.federation.algorithm
        trainer, stream = backend.trainer, backend.stream
        steps = 0.0
        fit, receive, train_step = trainer.fit, algorithm.receive, trainer.model.train_step
        started = 0.0

        def wait_for_device():
            if device == 'cuda':
                torch.cuda.synchronize()

        def timed_step(*args, **kwargs):
            nonlocal steps
            wait_for_device()
            start = time.perf_counter()
            out = train_step(*args, **kwargs)
            wait_for_device()
            steps += time.perf_counter() - start
            return out

        def timed_fit(*args):
            nonlocal steps, started
            steps, stream.waited, started = 0.0, 0.0, time.perf_counter()
            return fit(*args)

        def timed_receive(update):
            receive(update)
            wait_for_device()
            switches.append(time.perf_counter() - started - steps - stream.waited)
            start = time.perf_counter()
            torch._foreach_copy_(spare, tensors)
            wait_for_device()
            copies.append(time.perf_counter() - start)

        trainer.fit, algorithm.receive, trainer.model.train_step = timed_fit, timed_receive, timed_step
        tensors = list(trainer.model.state_dict().values())
        spare = [tensor.clone() for tensor in tensors]
        loop.run_epoch()
        switches.clear()
        copies.clear()
        for _ in range(ROUNDS):
            loop.run_epoch()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    table('Client switches', ['model MB', 'switches', 'median ms', 'least', 'greatest', 'copy of the model ms'], [
        [f'{size / 1e6:.1f}', len(switches), *(f'{1e3 * of(switches):.1f}' for of in (statistics.median, min, max)),
         f'{1e3 * statistics.median(copies):.1f}']])
    return {'client_switch_copies': Result.of([switch / copy for switch, copy in zip(switches, copies)], 5)}


if __name__ == '__main__':
    main(__doc__, measure)
