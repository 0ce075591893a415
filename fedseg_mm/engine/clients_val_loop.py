"""Evaluation of every client's own model, for runs without a federation."""
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import LOOPS
from mmengine.runner import ValLoop

from fedseg_mm.engine.backends import LocalBackend
from fedseg_mm.engine.federated_loop import FederatedTrainLoop
from fedseg_mm.errors import FedSegError


@LOOPS.register_module()
class ClientsValLoop(ValLoop):
    """Evaluates each client's model; the figures are the mean over the clients.

    Their spread stands beside each as ``*_std`` (population), ``*_min`` and
    ``*_max``; ``vis_data/clients.json`` has a line per evaluation with every
    client's figures. A client that has not trained yet has the initial model.
    """

    @torch.no_grad()
    def run(self) -> dict:
        """Launch the evaluation.

        Raises:
            FedSegError: There is no training whose clients could be evaluated.
        """
        runner = self.runner
        loop = runner._train_loop
        if not isinstance(loop, FederatedTrainLoop) or not isinstance(loop.federation.backend, LocalBackend):
            raise FedSegError('ClientsValLoop evaluates clients during a federated training in this process')
        trainer = loop.federation.backend.trainer
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        figures: list[dict] = []
        names = [loop.federation.client_name(client) for client in range(len(loop.federation.shards))]
        with trainer.own_models() as models:
            for client in models:
                runner.model.eval()
                for place, batch in enumerate(self.dataloader):
                    self.run_iter(place, batch)
                evaluated = self.evaluator.evaluate(len(self.dataloader.dataset))
                figures.append({name: float(value) for name, value in evaluated.items()})
                runner.logger.info(f'Client {names[client]}: ' + ', '.join(
                    f'{name} {value:.2f}' for name, value in figures[-1].items()))
        metrics = {}
        for name in figures[0]:
            values = np.array([one[name] for one in figures])
            spread = dict(std=values.std(), min=values.min(), max=values.max())
            metrics[name] = float(values.mean())
            metrics.update({f'{name}_{word}': float(value) for word, value in spread.items()})
        path = Path(runner.log_dir) / 'vis_data' / 'clients.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a', encoding='utf-8') as file:
            clients = [dict(client=name, **one) for name, one in zip(names, figures)]
            file.write(json.dumps(dict(round=runner.epoch, clients=clients)) + '\n')
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics
