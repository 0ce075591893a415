"""Clients that have names are called by them wherever they are shown."""
import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedseg_mm.engine.round_log import MOST_CURVES, RoundLog
from fedseg_mm.structures import Broadcast, ClientUpdate
from tests.conftest import CLASSES, tiny_config
from tests.test_engine.test_federated_loop import train

NAMES = ('St. Mary', 'Köln/Nord')


def manifest(folder) -> dict:
    clients = [dict(client=name, classes=list(CLASSES), images=[f'img_dir/train/{i:03d}.png' for i in images])
               for name, images in zip(NAMES, (range(12), range(12, 24)))]
    (folder / 'silos.json').write_text(json.dumps(dict(clients=clients)))
    return dict(type='ManifestPartitioner', manifest=str(folder / 'silos.json'), _delete_=True)


def lines(work_dir, name) -> list[dict]:
    return [json.loads(line) for line in next(work_dir.glob(f'*/vis_data/{name}')).open()]


def test_console_log_and_curves(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path / 'run', **{
        'federated.partitioner': manifest(tmp_path), 'federated.clients_per_round': 2, 'train_cfg.max_rounds': 1,
        'visualizer.vis_backends': [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]})
    train(cfg)
    line, = lines(tmp_path / 'run', 'rounds.json')
    assert {client['client']: client['name'] for client in line['clients']} == dict(enumerate(NAMES))
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'clients (loss, time) ' in log and 'St. Mary (' in log and 'Köln/Nord (' in log
    events = EventAccumulator(str(next((tmp_path / 'run').glob('*/vis_data'))))
    events.Reload()
    assert {'client/St. Mary/loss', 'client/Köln_Nord/loss', 'client/Köln_Nord/time'} <= set(events.Tags()['scalars'])


def test_models_of_clients_alone(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path / 'run', **{
        'federated.partitioner': manifest(tmp_path), 'federated.clients_per_round': 2, 'train_cfg.max_rounds': 1,
        'train_cfg.val_interval': 1, 'federated.algorithm': dict(type='LocalOnly')})
    cfg.val_cfg = dict(type='ClientsValLoop')
    train(cfg)
    line, = lines(tmp_path / 'run', 'clients.json')
    assert [client['client'] for client in line['clients']] == list(NAMES)
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'Client St. Mary: ' in log and 'Client Köln/Nord: ' in log


def test_many_clients_have_three_curves():
    def curves(clients: int) -> dict[str, float]:
        log = RoundLog(0, [0, 1], Broadcast(0, {}), num_clients=clients)
        for client, loss in enumerate((1.0, 3.0)):
            log.add(ClientUpdate(client, {}, 4, 2, dict(loss=loss)))
        return log.flat()

    few, many = curves(MOST_CURVES), curves(MOST_CURVES + 1)
    assert few['client/1/loss'] == 3.0 and not any(name.startswith('clients/') for name in few)
    assert [many[f'clients/loss_{word}'] for word in ('min', 'mean', 'max')] == [1, 2, 3]
    assert not any(name.startswith('client/') for name in many)
