"""Compares the gradients of loss terms with that under full annotation, client by client."""
import argparse
import logging
import sys
import tempfile
from pathlib import Path
from statistics import mean, median

from mmengine.runner import CheckpointLoader
from mmengine.utils import ProgressBar
from prettytable import PrettyTable
from torch import Tensor

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import config_of, one_sentence_errors, refuse_initial_model
from fedseg_mm.cli.test import check_checkpoint
from fedseg_mm.config import check_data_folders, federate
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.engine.gradient_comparison import ALL_LABELS, ClientGradients, GradientComparison, cosine
from fedseg_mm.engine.local_trainer import LocalTrainer
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import FedSegError
from fedseg_mm.resume import clients_folder


def make_trainer(args: argparse.Namespace, work_dir: str) -> tuple[LocalTrainer, tuple[str, ...], int]:
    """The trainer with the checkpoint's weights, the names of the classes, and the rounds that are over.

    Raises:
        FedSegError: The config or the checkpoint cannot be used.
    """
    cfg = config_of(args)
    federate(cfg)
    check_data_folders(cfg, ('train_dataloader', ))
    # MMEngine keeps a visualizer per experiment and second, whose folder may be gone
    cfg.update(work_dir=work_dir, experiment_name=Path(work_dir).name, log_level='ERROR', load_from=None, resume=False)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    runner = ToolRunner.from_cfg(cfg)
    federation = runner.train_loop.federation
    checkpoint = CheckpointLoader.load_checkpoint(args.checkpoint, 'cpu')
    refuse_initial_model(checkpoint, args.checkpoint)
    check_checkpoint(runner.model, checkpoint, args.checkpoint)
    runner.model.load_state_dict(checkpoint.get('state_dict', checkpoint))
    federation.algorithm.start(runner.model)
    federated = checkpoint.get('federated')
    if federated and federated.get('type') == type(federation.algorithm).__name__:
        federation.algorithm.load_state_dict(federated['algorithm'])
    trainer = LocalTrainer(
        runner.model, runner.build_optim_wrapper(cfg.optim_wrapper), federation.backend.stream, federation.algorithm,
        ClientStateStore(Path(args.checkpoint).parent / clients_folder(federated)), runner.seed)
    return trainer, federation.summary.class_names, checkpoint.get('meta', {}).get('epoch', 0)


def terms_table(clients: list[ClientGradients], sums: dict[str, Tensor]) -> PrettyTable:
    """A line per term: over the clients, and of the mean over the clients."""
    table = PrettyTable(['term', 'loss', 'gradient', 'cosine', 'mean gradient', 'cosine of the mean'])
    table.align = 'r'
    table.align['term'] = 'l'
    for name, total in sums.items():
        having = [client for client in clients if name in client.losses]
        table.add_row([
            name, f'{mean(client.losses[name] for client in having):.3f}',
            f'{median(client.norms[name] for client in having):.4f}',
            f'{mean(client.cosines[name] for client in having):.2f}', f'{total.norm().item() / len(clients):.4f}',
            f'{cosine(total, sums[ALL_LABELS]):.2f}'
        ])
    return table


def clients_table(clients: list[ClientGradients], class_names: tuple[str, ...], terms: list[str]) -> PrettyTable:
    """A line per client: the length of every term's gradient, and its cosine with that of all labels."""
    table = PrettyTable(['client', 'annotated classes', *terms])
    table.align = 'r'
    table.align['annotated classes'] = 'l'
    for client in clients:
        names = ', '.join(class_names[cls] for cls in client.classes)
        table.add_row([client.client, names if len(names) <= 40 else f'{len(client.classes)} classes', *(
            f'{client.norms[name]:.4f} ({client.cosines[name]:.2f})' if name in client.norms else '–'
            for name in terms)])
    return table


def compare(args: argparse.Namespace, work_dir: str) -> None:
    """Go through the clients and print the tables."""
    trainer, class_names, rounds = make_trainer(args, work_dir)
    comparison = GradientComparison(trainer, len(class_names))
    broadcast = trainer.algorithm.broadcast(rounds)
    clients: list[ClientGradients] = []
    progress = ProgressBar(len(trainer.stream.batch_sampler.shards), file=sys.stderr)
    for client in range(len(trainer.stream.batch_sampler.shards)):
        clients.append(comparison.of_client(client, broadcast, args.batches))
        progress.update()
    print(file=sys.stderr)
    terms = sorted(comparison.sums, key=lambda name: name == ALL_LABELS)  # it comes last
    if args.clients:
        print(clients_table(clients, class_names, terms))
    print(terms_table(clients, {name: comparison.sums[name] for name in terms}))
    print(f'Over {len(clients)} clients in round {rounds + 1}: the mean loss, the median length of the gradient, '
          'the mean cosine with the gradient of all labels; then the length and cosine of the mean gradient.')
    unannotated, labelled, right = (
        sum(getattr(client, name) for client in clients) for name in ('unannotated', 'pseudo_labelled', 'right'))
    if labelled:
        print(f'Pseudo-labels: {100 * labelled / unannotated:.0f} % of the unannotated pixels have one, '
              f'and {100 * right / labelled:.0f} % of these are right.')


def main(argv: list[str] | None = None) -> None:
    args = arguments.gradients(argv)
    with one_sentence_errors('fed_gradients'), tempfile.TemporaryDirectory() as work_dir:
        if args.batches < 1:
            raise FedSegError(f'--batches must be at least 1, but is {args.batches}')
        logging.disable(logging.INFO)
        try:
            compare(args, work_dir)
        finally:
            logging.disable(logging.NOTSET)
