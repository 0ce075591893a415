"""Trainings over NVFLARE, with real certificates and processes."""
import time

import pytest

from tests.conftest import assert_same_bits, weights_of
from tests.test_silos.network import Network
from tests.test_silos.sites import SITES, make_sites
from tests.test_silos.test_same_bits import annotated, one_place, train


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sites')
    make_sites(folder)
    return folder


@pytest.fixture
def network(tmp_path, data):
    pytest.importorskip('nvflare')
    made = []

    def make(**arguments) -> Network:
        made.append(Network(tmp_path, data, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_two_sites_over_nvflare_give_the_bits_of_one_place(network, data, tmp_path):
    train(one_place(data, tmp_path / 'here', **{
        'param_scheduler': [], 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 2}))
    net = network(changes=annotated(tmp_path / 'here'))
    net.start_all()
    training = net.train(2)
    assert training.wait(150) == 0, net.everything()
    assert_same_bits(weights_of(tmp_path / 'here' / 'round_2.pth'), weights_of(net.work_dir / 'round_2.pth'))
    for name in SITES:
        assert not list(net.site(name).glob('**/*.png'))
    assert 'Sites: north mIoU' in net.log('train')


#: What is killed: a pattern of its command line, and whose kit it is in.
VICTIMS = {
    'trainer': (r'trainer_process', 'north'),
    'job process of a site': (r'worker_process', 'north'),
    'site': (r'client_train', 'north'),
    'site with all of its processes': (r'.', 'north'),
    'job process of the server': (r'runner_process', 'server'),
    'server': (r'server_train', 'server'),
    'training': (r'silo train .*--once', None),
}


@pytest.mark.slow
@pytest.mark.parametrize('victim', VICTIMS)
def test_a_run_survives_the_death_of_any_part(victim, network, data, tmp_path):
    train(one_place(data, tmp_path / 'here', **{
        'param_scheduler': [], 'train_cfg.max_rounds': 8, 'train_cfg.val_interval': 8}))
    net = network(changes=annotated(tmp_path / 'here'))
    net.start_all()
    training = net.train(8)
    net.wait_for_round(3)
    words, whose = VICTIMS[victim]
    kit = None if whose is None else net.kits / 'server' if whose == 'server' else net.site(whose)
    started = time.monotonic()
    net.kill(words, kit)
    if victim == 'site with all of its processes':
        time.sleep(3)
        net.start('north')  # as a service manager does
    assert training.wait(400) == 0, net.everything()
    print(f'{victim}: done {time.monotonic() - started:.0f} s after it was killed')
    rounds = {line['round']: line for line in net.rounds()}
    assert sorted(rounds) == list(range(1, 9))
    lost = [(number, client['name'], client['reason']) for number, line in rounds.items()
            for client in line['clients'] if not client['used']]
    complete = not lost
    print('no client was lost in any round' if complete else lost)
    if complete:
        assert_same_bits(weights_of(tmp_path / 'here' / 'round_8.pth'), weights_of(net.work_dir / 'round_8.pth'))
