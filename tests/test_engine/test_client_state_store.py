import os
from pathlib import Path

import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.engine import ClientStateStore
from tests.conftest import assert_same_bits, tiny_config, weights_of
from tests.test_engine.test_federated_loop import Interrupt, model_weights, train


def state(value):
    return dict(weights={}, state=dict(w=torch.full((3, ), float(value)), steps=torch.tensor(value)))


def value(store, client):
    return store.load(client)['state']['steps'].item()


def files(store):
    return sorted(path.relative_to(store.folder).as_posix() for path in store.folder.rglob('*') if path.is_file())


def test_a_clients_last_state_is_loaded(tmp_path):
    store = ClientStateStore(tmp_path / 'clients')
    assert store.load(7) == {}
    for rounds in (2, 9, 10):  # numbers, not names, are compared
        store.save(7, rounds, state(rounds))
    store.save(8, 3, state(3))
    assert value(store, 7) == 10 and value(store, 8) == 3 and store.load(9) == {}
    again = ClientStateStore(tmp_path / 'clients').load(7)  # another process
    assert again.keys() == {'weights', 'state'}
    assert_same_bits(again['state'], state(10)['state'])
    assert again['state']['steps'].dtype == torch.int64
    assert not any(name.endswith('.tmp') for name in files(store))


def test_the_last_state_and_that_of_the_checkpoint_are_kept(tmp_path):
    """Whatever came in between is removed after the round, of this client; other clients' are left alone."""
    store = ClientStateStore(tmp_path)
    store.save(1, 1, state(1))

    def save(*rounds):
        for number in rounds:
            store.save(0, number, state(number))
            before = files(store)
            store.settle()
        return before, files(store)

    # there is no checkpoint yet; the state before is there until the round is finished
    assert save(1, 2, 4) == (['0/round_2.pth', '0/round_4.pth', '1/round_1.pth'], ['0/round_4.pth', '1/round_1.pth'])
    store.checkpointed = (5, )
    assert save(7, 8, 9)[1] == ['0/round_4.pth', '0/round_9.pth', '1/round_1.pth']
    assert store.latest() == {0: 9, 1: 1} and store.latest(8) == {0: 4, 1: 1}
    store.checkpointed = (5, 10)  # of two checkpoints
    assert save(11, 12)[1] == ['0/round_12.pth', '0/round_4.pth', '0/round_9.pth', '1/round_1.pth']
    store.checkpointed = (10, 12)
    assert save(13)[1] == ['0/round_12.pth', '0/round_13.pth', '0/round_9.pth', '1/round_1.pth']


def test_states_of_another_folder_are_taken_and_stay_there(tmp_path):
    first, second = ClientStateStore(tmp_path / 'clients'), ClientStateStore(tmp_path / 'clients_2')
    for client, rounds in ((0, 1), (0, 3), (1, 2)):
        first.save(client, rounds, state(rounds))
    second.take(first, {0: 1, 1: 2})
    assert files(second) == ['0/round_1.pth', '1/round_2.pth'] and value(second, 0) == 1
    second.save(0, 1, state(7))  # replaced, not changed
    assert first.has(0, 1) and not first.has(1, 1)
    assert torch.load(first.folder / '0' / 'round_1.pth', weights_only=True)['state']['steps'] == 1
    (first.folder / '0' / 'mine.txt').write_text('not ours')
    first.remove()
    assert files(first) == ['0/mine.txt'] and files(second) == ['0/round_1.pth', '1/round_2.pth']


def test_rewinding_forgets_what_came_after(tmp_path):
    store = ClientStateStore(tmp_path / 'clients')
    assert store.latest() == {}
    store.rewind(3)  # nothing was saved yet
    store.checkpointed = (3, )
    for client, rounds in ((0, 3), (0, 5), (1, 4), (2, 1)):
        store.save(client, rounds, state(rounds))
    (store.folder / '0' / 'round_9.123.tmp').write_bytes(b'of a save that was killed')
    (store.folder / 'hospital').mkdir()
    (store.folder / 'hospital' / 'a.png').write_bytes(b'not ours')
    (store.folder / '7').write_bytes(b'not ours')
    store.rewind(3)
    assert store.checkpointed == (3, ) and value(store, 0) == 3 and value(store, 2) == 1
    assert store.load(1) == {}  # it had not trained yet
    assert files(store) == ['0/round_3.pth', '2/round_1.pth', '7', 'hospital/a.png']
    store.rewind(0)
    assert store.load(0) == store.load(2) == store.latest() == {} and files(store) == ['7', 'hospital/a.png']
    store.save(0, 1, state(1))
    assert value(store, 0) == 1


@pytest.mark.parametrize('damage', ['cut off', 'no file of torch', 'empty', 'code'])
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    class Code:

        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'), )

    store = ClientStateStore(tmp_path / 'clients')
    store.save(12, 4, state(4))
    path = tmp_path / 'clients' / '12' / 'round_4.pth'
    content = path.read_bytes()
    if damage == 'code':
        torch.save(Code(), path)
    else:
        path.write_bytes({'cut off': content[:len(content) // 2], 'no file of torch': b'hello', 'empty': b''}[damage])
    with pytest.raises(FedSegError) as error:
        store.load(12)
    sentence = str(error.value)
    assert sentence.startswith(f'the state of client 12 in {path} cannot be read: ') and '\n' not in sentence
    assert not (tmp_path / 'executed').exists()


def test_a_save_that_is_cut_off_leaves_the_state_before(tmp_path, monkeypatch):
    store = ClientStateStore(tmp_path)
    store.save(0, 1, state(1))

    def fail(file, content):
        with file.open('wb') as half:
            half.write(b'half of it')
        raise OSError('no space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    for rounds in (1, 2):
        with pytest.raises(OSError, match='no space left'):
            store.save(0, rounds, state(7))
    assert value(store, 0) == 1 and files(store) == ['0/round_1.pth']


@pytest.mark.parametrize('algorithm', [
    dict(type='FedSeg', threshold=0., embedding_channels=16), dict(type='MOON'), dict(type='FedDyn'),
    dict(type='SCAFFOLD'), dict(type='FedAdam', batch_norm='local')], ids=lambda algorithm: algorithm['type'])
def test_interrupted_and_resumed_equals_uninterrupted(tiny_data, tmp_path, algorithm):
    """Killed in the fourth round, when clients have states of the third and fourth; the last checkpoint is the second.
    """
    changes = {
        'federated.algorithm': algorithm, 'federated.local_epochs': 1, 'federated.clients_per_round': 3,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=2),
        'train_cfg.max_rounds': 4, 'train_cfg.val_interval': 9, 'default_hooks.checkpoint.interval': 2}
    whole = train(tiny_config(tiny_data, tmp_path / 'whole', **changes))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(tiny_data, tmp_path / 'parts', **changes), Interrupt(round=3))
    assert [path.name for path in (tmp_path / 'parts').glob('round_*.pth')] == ['round_2.pth']
    if algorithm['type'] != 'FedSeg':  # which keeps nothing at the clients
        kept = {path.name for path in (tmp_path / 'parts').glob('clients/*/*')}
        assert {'round_3.pth', 'round_4.pth'} <= kept <= {f'round_{rounds}.pth' for rounds in range(1, 5)}
    torch.manual_seed(123)  # nothing may depend on the process' state
    resumed = train(tiny_config(tiny_data, tmp_path / 'parts', resume=True, **changes))
    assert_same_bits(model_weights(whole), model_weights(resumed))
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_4.pth'), weights_of(tmp_path / 'parts' / 'round_4.pth'))
    states = [runner.train_loop.federation.algorithm.state_dict() for runner in (whole, resumed)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    for client in range(4):  # what clients keep, too
        first, second = (runner.train_loop.federation.backend.store.load(client) for runner in (whole, resumed))
        for group in first.keys() | second.keys():
            assert_same_bits(first[group], second[group])


def test_on_disk_are_few_states_of_a_client(tiny_data, tmp_path):
    """Both clients in each of five rounds, a checkpoint after every second: nothing older than the last one stays."""
    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='FedDyn'), 'federated.local_epochs': 1, 'federated.clients_per_round': 2,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=2, classes_per_client=2),
        'train_cfg.max_rounds': 5, 'train_cfg.val_interval': 9, 'default_hooks.checkpoint.interval': 2}))
    for client in (0, 1):
        kept = sorted(path.name for path in (tmp_path / 'clients' / str(client)).iterdir())
        assert kept == ['round_4.pth', 'round_5.pth']
