"""Whole federated runs of a small stock model on small real files."""
import json
import re

import cv2
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import Sampler

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedAvg
from fedseg_mm.config import federate
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.seeding import derived_generator
from tests.conftest import assert_same_bits, make_images, tiny_config, weights_of


class Interrupt(Hook):
    """Stops a run in the middle of a round, after one of its clients."""

    def __init__(self, round):
        self.round = round

    def after_client(self, runner, update):
        if runner.epoch == self.round:
            raise KeyboardInterrupt


def train(cfg, *hooks) -> Runner:
    federate(cfg)
    cfg.experiment_name = f'test_{id(cfg)}_{torch.rand(1).item()}'
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def model_weights(runner) -> dict:
    return {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}


@DATA_SAMPLERS.register_module()
class SameOrderSampler(Sampler):
    """Hands stock training the images in the order in which client 0 sees them."""

    def __init__(self, dataset, seed, shuffle=True):
        self.size, self.seed, self.epoch = len(dataset), 5, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = derived_generator(self.seed, 'order', self.epoch, 0, 0)
        return iter(order.permutation(range(self.size)).tolist())

    def __len__(self):
        return self.size


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_one_client_with_all_data_is_stock_training_bit_for_bit(tiny_data, tmp_path, accumulative_counts):
    def config(name):
        cfg = tiny_config(tiny_data, tmp_path / name, **{
            'model.decode_head.dropout_ratio': 0,
            'model.decode_head.loss_decode': dict(type='CrossEntropyLoss', _delete_=True),
            'optim_wrapper.optimizer.momentum': 0,
            'optim_wrapper.accumulative_counts': accumulative_counts,
            'train_dataloader.batch_size': 3,
            'federated.partitioner': dict(type='ClassPartitioner', num_clients=1, classes_per_client=4),
            'federated.clients_per_round': 1,
            'federated.local_epochs': 1})
        cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss')
        cfg.train_dataloader.dataset.pipeline = [
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
        return cfg

    federated = train(config('federated'))
    stock = config('stock')
    stock.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=9)
    stock.train_dataloader.sampler = dict(type='SameOrderSampler')
    stock.default_hooks.logger = dict(type='LoggerHook')
    stock.log_processor = dict(by_epoch=True)
    stock.experiment_name = f'stock_{accumulative_counts}'
    stock = Runner.from_cfg(stock)
    stock.train()
    assert stock.iter == 24 and federated.epoch == 3
    assert_same_bits(model_weights(federated), model_weights(stock))


@pytest.mark.parametrize('workers', [2, 4])
def test_workers_do_not_change_weights(tiny_data, tmp_path, workers):
    """With dropout, random augmentation and 0 workers or some."""
    expected = train(tiny_config(tiny_data, tmp_path / '0'))
    other = train(tiny_config(tiny_data, tmp_path / 'other', **{'train_dataloader.num_workers': workers}))
    assert_same_bits(model_weights(expected), model_weights(other))


def test_another_seed_gives_other_weights(tiny_data, tmp_path):
    first, second = (
        train(tiny_config(tiny_data, tmp_path / str(seed), **{'randomness.seed': seed, 'train_cfg.max_rounds': 1}))
        for seed in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(model_weights(first).values(), model_weights(second).values()))


def test_interrupted_and_resumed_equals_uninterrupted(tiny_data, tmp_path):
    changes = {'optim_wrapper.optimizer': dict(type='AdamW', lr=0.002, _delete_=True)}
    whole = train(tiny_config(tiny_data, tmp_path / 'whole', **changes))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(tiny_data, tmp_path / 'parts', **changes), Interrupt(round=1))
    torch.manual_seed(123)  # nothing may depend on the process' state
    resumed = train(tiny_config(tiny_data, tmp_path / 'parts', resume=True, **changes))
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'parts' / 'round_3.pth'))
    assert_same_bits(model_weights(whole), model_weights(resumed))
    assert resumed.message_hub.get_scalar('train/loss').data[0].tolist() == \
        whole.message_hub.get_scalar('train/loss').data[0].tolist()
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    assert resumed.message_hub.get_info('best_score') == whole.message_hub.get_info('best_score')


def test_resume_on_another_partition_is_refused(tiny_data, tmp_path):
    train(tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1}))
    with pytest.raises(FedSegError, match='trained on the partition .* resume with the data and partitioner'):
        train(tiny_config(tiny_data, tmp_path, resume=True, **{'federated.partitioner.seed': 1}))
    manifest = json.loads((tmp_path / 'partition.json').read_text())  # still the first run's
    assert manifest['hash'] == torch.load(tmp_path / 'round_1.pth', weights_only=True)['federated']['partition']


@pytest.mark.parametrize('schedule', [
    dict(type='OneCycleLR', eta_max=0.1, total_steps=3, by_epoch=True),
    dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater', patience=1)])
def test_checkpoints_with_any_schedule_can_be_read(tiny_data, tmp_path, schedule):
    """Some schedules keep functions and numpy numbers, which must not go into a file."""
    changes = {'param_scheduler': [schedule], 'train_cfg.val_interval': 1}
    whole = train(tiny_config(tiny_data, tmp_path / 'whole', **changes))
    torch.load(tmp_path / 'whole' / 'round_3.pth', weights_only=True)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(tiny_data, tmp_path / 'parts', **changes), Interrupt(round=2))
    resumed = train(tiny_config(tiny_data, tmp_path / 'parts', resume=True, **changes))
    assert resumed.epoch == 3
    if schedule['type'] == 'OneCycleLR':
        assert_same_bits(model_weights(whole), model_weights(resumed))


def test_the_model_is_left_as_it_was_found(tiny_data, tmp_path):
    """After training, BackCE annotates all classes again and label 254 is no longer hidden."""
    runner = train(tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1}))
    loss = runner.model.decode_head.loss_decode
    assert loss._classes == (None, ) and loss._unannotated is None and not runner.model._forward_pre_hooks


def test_classes_that_nobody_annotates_are_named(tiny_data, tmp_path):
    """With one class per client, classes that share their only image cannot both be annotated."""
    data = tmp_path / 'data'
    make_images(data, 'train', 12, classes=2)
    make_images(data, 'test', 2)
    label = cv2.imread(str(data / 'ann_dir' / 'train' / '000.png'), cv2.IMREAD_UNCHANGED)
    label[10:20], label[30:40] = 2, 3
    cv2.imwrite(str(data / 'ann_dir' / 'train' / '000.png'), label)
    train(tiny_config(data, tmp_path / 'run', **{'train_cfg.max_rounds': 1}))
    assert 'No client annotates ' in next((tmp_path / 'run').glob('*/*.log')).read_text()


def test_files_of_a_run(tiny_data, tmp_path):
    """Checkpoints load as plain weights; the log names cohort, loss, time and bytes."""
    runner = train(tiny_config(tiny_data, tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert {'round_1.pth', 'round_2.pth', 'round_3.pth', 'best_mIoU_round_3.pth', 'partition.json'} <= names
    checkpoint = torch.load(tmp_path / 'round_3.pth', weights_only=True)
    assert set(checkpoint['state_dict']) == set(runner.model.state_dict())
    assert not checkpoint['optimizer']['state']  # a client's momentum is not the server's to keep
    tracked = [tensor for name, tensor in checkpoint['state_dict'].items() if name.endswith('num_batches_tracked')]
    assert tracked and all(tensor.dtype == torch.int64 for tensor in tracked)

    rounds = [json.loads(line) for line in (next(tmp_path.glob('*/vis_data')) / 'rounds.json').open()]
    assert [line['round'] for line in rounds] == [1, 2, 3]
    size = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint['state_dict'].values())
    for line in rounds:
        assert line['cohort'] == [client['client'] for client in line['clients']] and len(line['cohort']) == 3
        assert line['bytes_down'] == line['bytes_up'] == 3 * size
        assert line['images'] == sum(client['images'] for client in line['clients'])
        assert all(client['time'] > 0 and client['loss'] > 0 and client['steps'] > 0 for client in line['clients'])
    scalars = [json.loads(line) for line in (next(tmp_path.glob('*/vis_data')) / 'scalars.json').open()]
    losses = [line['loss'] for line in scalars if 'loss' in line]
    mean = sum(client['loss'] * client['images'] for client in rounds[0]['clients']) / rounds[0]['images']
    assert len(losses) == 3 and losses[0] == pytest.approx(mean)
    assert any('mIoU' in line for line in scalars)
    assert all(0.001 < line['data_time'] < line['time'] for line in scalars if 'loss' in line)
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Round(train) [2/3]' in log and 'eta: ' in log and 'Round 2: clients (loss, time) ' in log


def test_learning_rate_and_schedules_count_rounds(tiny_data, tmp_path):
    seen = []

    class Record(Hook):

        def before_client(self, runner, client):
            seen.append(runner.optim_wrapper.get_lr()['lr'][0])

    schedule = [dict(type='MultiStepLR', milestones=[1], gamma=0.1, by_epoch=True),
                dict(type='MultiStepLR', milestones=[2], gamma=0.5, by_epoch=False)]
    train(tiny_config(tiny_data, tmp_path, param_scheduler=schedule), Record())
    assert seen == pytest.approx([0.05] * 3 + [0.005] * 3 + [0.0025] * 3)


def test_ema_averages_global_models(tiny_data, tmp_path):
    snapshots = []

    class Snapshot(Hook):

        def after_round(self, runner):
            snapshots.append(model_weights(runner))

    runner = train(tiny_config(tiny_data, tmp_path, custom_hooks=[dict(type='EMAHook', momentum=0.25)]), Snapshot())
    name = 'decode_head.conv_seg.weight'
    expected = snapshots[0][name]  # the first update copies
    for snapshot in snapshots[1:]:
        expected = 0.75 * expected + 0.25 * snapshot[name]
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model
    torch.testing.assert_close(ema.module.state_dict()[name], expected)
    assert_same_bits(model_weights(runner), snapshots[-1])


def test_hooks_are_called_in_order(tiny_data, tmp_path):
    calls = []

    class Record(Hook):

        def before_round(self, runner, cohort, broadcast):
            calls.append(('round', runner.epoch, len(cohort)))

        def before_client(self, runner, client):
            calls.append('client')

        def after_client(self, runner, update):
            calls.append('update')

        def after_round(self, runner):
            calls.append('averaged')

    train(tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 2}), Record())
    one = ['client', 'update'] * 3 + ['averaged']
    assert calls == [('round', 0, 3), *one, ('round', 1, 3), *one]


class Spoil(Hook):
    """Makes the first clients of a round send NaN."""

    def __init__(self, number):
        self.number = number

    def before_round(self, runner, cohort, broadcast):
        self.left = self.number

    def before_client(self, runner, client):
        handle = None

        def spoil(optimizer, args, kwargs):
            next(iter(runner.model.parameters())).data.fill_(float('nan'))
            handle.remove()

        if self.left > 0:
            handle = runner.optim_wrapper.optimizer.register_step_post_hook(spoil)
        self.left -= 1


def test_update_that_is_not_finite_is_left_out(tiny_data, tmp_path):
    runner = train(tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 2}), Spoil(2))
    assert all(torch.isfinite(tensor.float()).all() for tensor in model_weights(runner).values())
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('holds NaN or infinite values and is left out') == 4


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_a_loss_that_is_not_finite_spoils_no_finite_weights(tiny_data, tmp_path, value):
    """A term without a gradient, as of a batch in which it has nothing to do: weights are what counts."""

    class OddTerm(Hook):

        def before_train(self, runner):
            def add(model, args, kwargs, losses):
                if kwargs.get('mode') == 'loss':
                    return {**losses, 'decode.loss_odd': torch.tensor(float(value))}

            runner.model.register_forward_hook(add, with_kwargs=True)

    plain = train(tiny_config(tiny_data, tmp_path / 'plain', **{'train_cfg.max_rounds': 1}))
    odd = train(tiny_config(tiny_data, tmp_path / 'odd', **{'train_cfg.max_rounds': 1}), OddTerm())
    assert_same_bits(model_weights(plain), model_weights(odd))
    log = next((tmp_path / 'odd').glob('*/*.log')).read_text()
    assert log.count('was NaN or infinite in a batch, but its weights are finite and are used.') == 3
    assert 'Round 1: decode.loss_odd of client ' in log and 'left out' not in log
    line = json.loads((next((tmp_path / 'odd').glob('*/vis_data')) / 'rounds.json').read_text())
    assert all(client['used'] and client['loss'] is None for client in line['clients'])


def test_lovasz_over_batches_without_a_labelled_pixel(tiny_data, tmp_path):
    """Its mean over no pixel would be NaN; it sees no such batch, and the only client of every round counts."""
    cfg = tiny_config(tiny_data, tmp_path, **{
        'model.data_preprocessor.size': (16, 16), 'federated.clients_per_round': 1, 'federated.local_epochs': 4,
        'train_cfg.max_rounds': 4, 'train_cfg.val_interval': 9})
    cfg.model.decode_head.loss_decode = [
        dict(type='BackCELoss'), dict(type='LovaszLoss', per_image=False, reduction='none')]
    cfg.train_dataloader.dataset.pipeline[3].crop_size = (16, 16)
    train(cfg)
    lines = (next(tmp_path.glob('*/vis_data')) / 'rounds.json').read_text().splitlines()
    assert all(client['used'] and client['decode.loss_lovasz'] is not None
               for line in lines for client in json.loads(line)['clients'])
    assert 'was NaN' not in next(tmp_path.glob('*/*.log')).read_text()


def test_round_without_a_finite_update_stops_and_loses_nothing(tiny_data, tmp_path):
    train(tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1}))
    with pytest.raises(FedSegError, match='round 2: no client of the cohort .* finite update'):
        train(tiny_config(tiny_data, tmp_path, resume=True), Spoil(3))
    resumed = train(tiny_config(tiny_data, tmp_path, resume=True))
    assert resumed.epoch == 3


class SpoilRounds(Spoil):
    """Makes the first two clients of some rounds send NaN."""

    def __init__(self, *rounds):
        super().__init__(2)
        self.rounds = rounds

    def before_round(self, runner, cohort, broadcast):
        self.left = 2 if runner.epoch + 1 in self.rounds else 0


@pytest.mark.parametrize('algorithm', [
    dict(type='FedAvg'), dict(type='SCAFFOLD', batch_norm='local'), dict(type='FedAdam')])
def test_a_round_with_too_few_updates_changes_nothing(tiny_data, tmp_path, algorithm):
    """One of three is not enough; what it sent is forgotten: a fresh process goes on from there to the same bits."""
    changes = {'federated.min_clients': 2, 'federated.max_failed_rounds': 2, 'federated.algorithm': algorithm,
               'train_cfg.max_rounds': 3, 'train_cfg.val_interval': 9}
    train(tiny_config(tiny_data, tmp_path / 'whole', **changes), SpoilRounds(2))
    first, second, third = (weights_of(tmp_path / 'whole' / f'round_{number}.pth') for number in (1, 2, 3))
    assert_same_bits(first, second)
    assert any(not torch.equal(second[name], third[name]) for name in second)
    log = next((tmp_path / 'whole').glob('*/*.log')).read_text()
    assert re.search(r'Round 2: 1 client of the cohort \d, \d, \d sent a finite update, and federated.min_clients is '
                     '2: the global model stays as it was', log)
    train(tiny_config(tiny_data, tmp_path / 'part', **{**changes, 'train_cfg.max_rounds': 2}), SpoilRounds(2))
    train(tiny_config(tiny_data, tmp_path / 'part', resume=True, **changes))
    assert_same_bits(third, weights_of(tmp_path / 'part' / 'round_3.pth'))


def test_too_many_such_rounds_in_a_row_end_the_run(tiny_data, tmp_path):
    changes = {'federated.min_clients': 3, 'federated.max_failed_rounds': 2, 'train_cfg.max_rounds': 5,
               'train_cfg.val_interval': 9}
    with pytest.raises(FedSegError, match=r'round 4: 1 client of the cohort .*min_clients is 3, 2 rounds in a row; '):
        train(tiny_config(tiny_data, tmp_path, **changes), SpoilRounds(1, 3, 4))
    with pytest.raises(FedSegError, match=r'federated.min_clients=4 is more than the 3 clients of a round'):
        train(tiny_config(tiny_data, tmp_path / 'refused', **{'federated.min_clients': 4}))


def test_a_method_in_a_users_own_file(tiny_data, tmp_path):
    """A subclass is registered and named in the config; the package is not edited."""

    @ALGORITHMS.register_module(force=True)
    class UniformMean(FedAvg):

        def __init__(self, share=1.0):
            super().__init__()
            self.share = share
            self.rounds = 0

        def update_weight(self, update):
            return self.share

        def step(self, model):
            super().step(model)
            self.rounds += 1

        def state_dict(self):
            return dict(rounds=self.rounds)

        def load_state_dict(self, state):
            self.rounds = state['rounds']

    method = {'federated.algorithm': dict(type='UniformMean', share=2.0)}
    train(tiny_config(tiny_data, tmp_path, **method, **{'train_cfg.max_rounds': 2}))
    runner = train(tiny_config(tiny_data, tmp_path, resume=True, **method))
    assert runner.train_loop.federation.algorithm.rounds == 3


def test_two_federations_are_refused(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path)
    federate(cfg)
    cfg.custom_hooks += [dict(type='FederatedHook', **cfg.federated)] * 2
    with pytest.raises(FedSegError, match='there are 2 FederatedHooks'):
        Runner.from_cfg(cfg).train()


def test_an_evaluation_set_in_a_wrapper_is_no_matter(tiny_data, tmp_path):
    """Only the training data are divided among clients."""
    cfg = tiny_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1})
    cfg.val_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.val_dataloader.dataset)
    assert train(cfg).epoch == 1


def test_tensorboard(tiny_data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    runner = train(tiny_config(tiny_data, tmp_path, **{'visualizer.vis_backends': backends}))
    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    tags = events.Tags()['scalars']
    assert {'loss', 'lr', 'mIoU', 'round/bytes_up', 'round/images'} <= set(tags)
    assert [event.step for event in events.Scalars('loss')] == [1, 2, 3]
    cohort = {client['client'] for client in runner.train_loop.round_log.clients}
    assert {f'client/{client}/loss' for client in cohort} <= set(tags)


def test_channels_last_is_the_same_training_but_for_the_order_of_sums(tiny_data, tmp_path):
    changes = {'federated.algorithm': dict(type='FedDyn'), 'optim_wrapper.optimizer.lr': 0.01}
    plain = train(tiny_config(tiny_data, tmp_path / 'plain', **changes))
    other = train(tiny_config(tiny_data, tmp_path / 'other', **changes, custom_hooks=[dict(type='ChannelsLastHook')]))
    weights = other.train_loop.federation.algorithm.weights
    kernels = [tensor for tensor in weights.values() if tensor.ndim == 4 and min(tensor.shape) > 1]
    assert kernels and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in kernels)
    for name, tensor in model_weights(plain).items():
        torch.testing.assert_close(model_weights(other)[name], tensor, rtol=1e-2, atol=1e-2)
    checkpoints = [torch.load(tmp_path / folder / 'round_3.pth', weights_only=True) for folder in ('plain', 'other')]
    assert checkpoints[0]['state_dict'].keys() == checkpoints[1]['state_dict'].keys()


@pytest.mark.parametrize('benchmark', [True, False])
def test_cudnn_tries_no_algorithms_for_every_size_of_an_evaluated_image(tiny_data, tmp_path, benchmark, monkeypatch):
    class Note(Hook):
        seen = []

        def before_val_iter(self, runner, **kwargs):
            self.seen.append(('evaluated', torch.backends.cudnn.benchmark))

        def after_round(self, runner, **kwargs):
            self.seen.append(('trained', torch.backends.cudnn.benchmark))

    monkeypatch.setattr(Note, 'seen', [])
    cfg = tiny_config(tiny_data, tmp_path, **{'env_cfg': dict(cudnn_benchmark=benchmark), 'train_cfg.max_rounds': 2,
                                              'train_cfg.val_interval': 1, 'federated.clients_per_round': 1})
    try:
        train(cfg, Note())
    finally:
        torch.backends.cudnn.benchmark = False
    assert set(Note.seen) == {('evaluated', False), ('trained', benchmark)}
    assert [what for what, _ in Note.seen] == 2 * (['trained'] + 4 * ['evaluated'])


def test_cached_images_do_not_change_weights(tiny_data, tmp_path):
    cached = tiny_config(tiny_data, tmp_path / 'cached')
    cached.train_dataloader.dataset.pipeline[0].type = 'LoadCachedImage'
    assert_same_bits(model_weights(train(tiny_config(tiny_data, tmp_path / 'stock'))), model_weights(train(cached)))


@pytest.mark.slow
def test_compiled_training_equals_the_uncompiled(tiny_data, tmp_path):
    """MMEngine's `compile`; the frozen model runs its own weights there too."""
    changes = {'federated.algorithm': dict(type='FedSeg', start_round=0), 'train_cfg.max_rounds': 2}
    plain = train(tiny_config(tiny_data, tmp_path / 'plain', **changes))
    compiled = train(tiny_config(tiny_data, tmp_path / 'compiled', **changes, compile=dict(backend='eager')))
    for name, tensor in model_weights(plain).items():
        torch.testing.assert_close(model_weights(compiled)[name], tensor, rtol=1e-3, atol=1e-4)
