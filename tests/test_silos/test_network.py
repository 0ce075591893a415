"""Trainings over NVFLARE, with real certificates and processes."""
import json
import re
import time

import pytest

from tests.conftest import assert_same_bits, weights_of
from tests.test_silos.network import Network, Proxy
from tests.test_silos.sites import annotated, one_place, train


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
    assert 'Sites: north mIoU' in net.log('train')
    assert 'north is connected to the server' in net.log('north') and 'Training round 2.' in net.log('north')
    status = net.silo('status', 'status', '--kits', str(net.kits))
    assert status.wait(60) == 0
    assert re.search(r'north *\| yes, heard', net.log('status')) and re.search(r'south *\| yes', net.log('status'))
    again = net.silo('again', 'start', str(net.site('north')))
    assert again.wait(60) == 1 and 'is run already, by the process' in net.log('again')
    stop = net.silo('stop', 'stop', str(net.site('north')))
    assert stop.wait(60) == 0 and net.processes['north'].wait(5) == 0
    assert not net.pids('trainer_process', net.site('north'))


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
    print('no client was lost in any round' if not lost else lost)
    assert len({number for number, *_ in lost}) <= 1
    if not lost:
        assert_same_bits(weights_of(tmp_path / 'here' / 'round_8.pth'), weights_of(net.work_dir / 'round_8.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('seconds', [0, 25], ids=['for a moment', 'for 25 s'])
def test_a_run_survives_a_network_that_is_cut_during_an_upload(seconds, network, data, tmp_path):
    train(one_place(data, tmp_path / 'here', **{
        'param_scheduler': [], 'train_cfg.max_rounds': 8, 'train_cfg.val_interval': 8}))
    net = network(changes=annotated(tmp_path / 'here'))
    proxy = Proxy(net.port)
    try:
        kit = net.site('north') / 'startup' / 'fed_client.json'
        kit.write_text(kit.read_text().replace(f'localhost:{net.port}', f'localhost:{proxy.port}'))
        net.start_all()
        training = net.train(8)
        net.wait_for_round(3)
        started = time.monotonic()
        for _ in range(5):  # in whatever is under way
            proxy.cut()
            time.sleep(seconds / 5)
            proxy.open = True
            time.sleep(0.15)
        assert training.wait(300) == 0, net.everything()
        print(f'done {time.monotonic() - started:.0f} s after the first cut')
        assert all(client['used'] for line in net.rounds() for client in line['clients'])
        assert_same_bits(weights_of(tmp_path / 'here' / 'round_8.pth'), weights_of(net.work_dir / 'round_8.pth'))
    finally:
        proxy.close()


def submit(net: Network, tmp_path, executor: dict, code: str = '') -> str:
    """Submit a job of somebody else's, as the administrator; how it ended."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    from fedseg_mm.silos.job import write_job
    from fedseg_mm.silos.kits import ADMIN
    job = write_job(tmp_path / 'job')
    client = job / 'app' / 'config' / 'config_fed_client.json'
    client.write_text(json.dumps(dict(format_version=2, executors=[dict(tasks=['none'], executor=executor)])))
    if code:
        (job / 'app' / 'custom').mkdir()
        (job / 'app' / 'custom' / 'own.py').write_text(code)
    session = new_secure_session(ADMIN, str(net.kits / 'admin'), timeout=30.0)
    try:
        identity = session.submit_job(str(job))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            status = session.get_job_status(identity)
            if status.startswith('FINISHED') or 'FAILED' in status:
                return status
            time.sleep(0.5)
        session.abort_job(identity)
        return status
    finally:
        session.close()


@pytest.mark.slow
@pytest.mark.parametrize('own', [False, True], ids=['a class outside the list', 'custom code'])
def test_a_job_that_is_not_the_relay_is_refused_by_the_site(own, network, tmp_path):
    net = network()
    net.serve()
    net.start('north')
    wait_for(lambda: 'north is connected to the server' in net.log('north'))
    ran = tmp_path / 'ran'
    if own:
        status = submit(net, tmp_path, dict(path='own.Evil', args={}),
                        f'import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass Evil:\n    pass\n')
    else:
        status = submit(net, tmp_path, dict(path='subprocess.Popen', args=dict(args=['touch', str(ran)])))
    assert status != 'RUNNING' and 'COMPLETED' not in status
    time.sleep(3)
    assert not ran.exists()
    logs = ''.join(file.read_text(errors='replace') for file in net.kits.glob('**/*log*.txt')) + ''.join(
        file.read_text(errors='replace') for file in net.kits.glob('**/nvflare.log'))
    assert ('BYOC not permitted' if own else 'ComponentNotAuthorized') in logs
    assert not net.pids('touch')


@pytest.mark.slow
def test_a_kit_of_another_federation_does_not_get_in(network, data, tmp_path):
    net, other = network(), Network(make(tmp_path / 'other'), data)
    try:
        kit = other.site('north') / 'startup' / 'fed_client.json'
        kit.write_text(kit.read_text().replace(str(other.port), str(net.port)))
        net.serve()
        other.start('north')
        wait_for(lambda: 'does not trust' in other.log('north'))
        assert 'is connected' not in other.log('north')
        assert "a certificate that" in other.log('north') and 'the kit is of another federation' in other.log('north')
    finally:
        other.close()


@pytest.mark.slow
def test_a_server_that_is_not_up_is_said_and_waited_for(network):
    net = network()
    net.start('north')
    wait_for(lambda: 'is not to be reached: it is tried again until it is' in net.log('north'))
    net.serve()
    wait_for(lambda: 'north is connected to the server' in net.log('north'))


def make(folder):
    folder.mkdir()
    return folder


def wait_for(condition, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'it has not happened'
        time.sleep(0.2)
