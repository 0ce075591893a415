"""A whole round with everything built anew for every client, against ours; the step takes well under 100 ms.

The naive way, as in much research code: for each client of the cohort, a deep copy of the global model, a new
optimizer, and a new DataLoader of its own with two workers, which start anew in every local epoch; all state_dicts are
kept, and averaged in the end, key by key. Same model, images, batches and worker count on both sides: 5 clients x 2
local epochs x 2 batches of 8.
"""
import copy
from statistics import median

import torch
from measure import Result, interleaved, main, ratios, table
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmseg.registry import DATASETS
from peers import config, federated_config, federation, image_folder
from torch.utils.data import DataLoader, Subset

from fedseg_mm.models import accuracy_without_waiting

CLIENTS, EPOCHS, BATCHES, BATCH_SIZE, WORKERS = 5, 2, 2, 8, 2


class NaiveFederation:
    """One round of FedAvg as one writes it down."""

    def __init__(self, model, common: dict) -> None:
        self.model = copy.deepcopy(model)
        self.dataset = DATASETS.build(common['train_dataloader']['dataset'])
        self.optim_wrapper = common['optim_wrapper']
        self.shards = torch.randperm(len(self.dataset)).chunk(CLIENTS)

    def round(self) -> None:
        states = []
        for shard in self.shards:
            model = copy.deepcopy(self.model).train()
            optim_wrapper = build_optim_wrapper(model, copy.deepcopy(self.optim_wrapper))
            loader = DataLoader(Subset(self.dataset, shard.tolist()), BATCH_SIZE, shuffle=True, drop_last=True,
                                num_workers=WORKERS, collate_fn=pseudo_collate)
            with accuracy_without_waiting(model):  # as a client's steps have it: the rest is compared
                for _ in range(EPOCHS):
                    for batch in loader:
                        model.train_step(batch, optim_wrapper=optim_wrapper)
            states.append(copy.deepcopy(model.state_dict()))
        mean = {key: sum(state[key] * (len(shard) / len(self.dataset)) for state, shard in zip(states, self.shards))
                for key in states[0]}
        self.model.load_state_dict(mean)


def measure(device: str) -> dict[str, Result]:
    torch.set_num_threads(1)
    with image_folder(CLIENTS * BATCHES * BATCH_SIZE, (60, 80)) as folder:
        common = config(folder, (48, 64), BATCH_SIZE, WORKERS)
        ours = federation(federated_config(common, CLIENTS, CLIENTS, EPOCHS))
        naive = NaiveFederation(ours.federation.backend.trainer.model, common)
        slow, fast = interleaved(naive.round, ours.run_epoch, repeats=9, warm_up=1, device=device)
        ours.federation.backend.stream.close()
    steps = CLIENTS * EPOCHS * BATCHES
    table(f'A round of {steps} steps of {BATCH_SIZE} images of 48x64', ['', 's', 'ms per step, all in all'], [
        [name, f'{median(times):.2f}', f'{1e3 * median(times) / steps:.0f}']
        for name, times in (('naive', slow), ('ours', fast))])
    return {'naive_setup_speedup': Result.of(ratios(slow, fast), 2, at_least=True)}


if __name__ == '__main__':
    main(__doc__, measure)
