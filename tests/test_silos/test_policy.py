"""What a site builds, reads and tells, whoever asks."""
import datetime
import json
import os
import socket
import stat
from types import SimpleNamespace

import pytest
import yaml

from fedseg_mm.errors import FedSegError
from fedseg_mm.silos import wire
from fedseg_mm.silos.desk import Desk
from fedseg_mm.silos.run_config import check_received, from_json, to_json
from fedseg_mm.silos.site_config import TEMPLATE, SiteConfig
from fedseg_mm.silos.spool import Spool, digest_of
from tests.conftest import tiny_config

GOOD = dict(model=dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=18)), classes=['sky/cloud', 'road'])


@pytest.mark.parametrize('changes, sentence', [
    (dict(model=dict(type='subprocess.Popen', args=['true'])), "sends model.type='subprocess.Popen', which is not"),
    (dict(model=dict(type='os.system', command='true')), 'model.type'),
    (dict(model=dict(type='Popen')), 'model.type'),
    (dict(model=dict(type=['ResNet'])), 'model.type'),
    (dict(train_pipeline=[dict(type='Resize'), dict(type='builtins.eval', source='1')]), 'train_pipeline.1.type'),
    (dict(optim_wrapper=dict(constructor='os.system')), 'optim_wrapper.constructor'),
    (dict(model=dict(loss=dict(type='CrossEntropyLoss', class_weight='weights.pkl'))), 'may be a file or an address'),
    (dict(model=dict(loss=dict(class_weight='http://server/weights'))), 'may be a file or an address'),
    (dict(model=dict(loss=dict(class_weight='../../etc/passwd'))), 'may be a file or an address'),
    (dict(model=dict(loss=dict(class_weight=['~root']))), 'may be a file or an address'),
    (dict(model=dict(loss=dict(class_weight='pkl'))), 'may be a file or an address'),
    (dict(model=dict(backbone=dict(model_name='hf_hub:resnet'))), 'may be a file or an address'),
    (dict(model=dict(init_cfg=dict(type='Pretrained', checkpoint='x'))), 'model.init_cfg'),
    (dict(model=dict(pretrained='torchvision')), 'model.pretrained'),
    (dict(model=dict(_scope_='os')), 'model._scope_'),
    (dict(custom_imports=dict(imports=['os'])), '`custom_imports`'),
    (dict(federated=dict(imports=['os'])), 'federated.imports'),
    (dict(work_dir='elsewhere'), '`work_dir`')])
def test_a_config_that_could_run_code_or_read_files_is_refused(changes, sentence):
    with pytest.raises(FedSegError, match='the server sends ') as error:
        check_received({**GOOD, **changes})
    assert sentence in str(error.value)


def test_an_ordinary_config_is_taken(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    sections = to_json(dict(model=cfg.model, train_pipeline=cfg.train_dataloader.dataset.pipeline,
                            optim_wrapper=cfg.optim_wrapper, classes=('a', 'b')))
    check_received(json.loads(json.dumps(sections)))
    crop = from_json(sections)['train_pipeline'][3]['crop_size']
    assert crop == (48, 64) and isinstance(crop, tuple)


def test_pretrained_weights_are_not_sent_by_name():
    assert to_json(dict(a=dict(init_cfg=dict(type='Pretrained'), pretrained='x', depth=(1, 2)))) == dict(
        a=dict(depth={'(': [1, 2]}))


@pytest.mark.parametrize('changes, sentence', [
    (dict(train=None), '`train` is missing'), (dict(train='images'), '`train` must name two folders'),
    (dict(train=dict(images='nowhere', masks='nowhere')), 'the folder .*nowhere of `train.images` does not exist'),
    (dict(val=dict(images='.')), '`val` must name two folders'), (dict(anotates=['sky']), 'did you mean `annotates`'),
    (dict(annotates='sky'), '`annotates` must be a list'), (dict(device='tpu'), '`device` must be cpu or cuda'),
    (dict(unannotated=-1), '`unannotated` must be a number from 0'), (dict(workers=True), '`workers` must be'),
    (dict(tell=['images']), '`tell` may list pixels, but lists images')])
def test_a_site_yaml_is_refused_in_a_sentence(changes, sentence, tmp_path):
    folders = dict(images=str(tmp_path), masks=str(tmp_path))
    (tmp_path / 'site.yaml').write_text(yaml.safe_dump({'train': folders, **changes}))
    with pytest.raises(FedSegError, match=sentence):
        SiteConfig.read(tmp_path / 'site.yaml')


def test_the_template_is_a_site_yaml_once_its_folders_are_there(tmp_path):
    for part in ('train', 'val'):
        for kind in ('images', 'masks'):
            (tmp_path / 'data' / part / kind).mkdir(parents=True)
    (tmp_path / 'site.yaml').write_text(TEMPLATE)
    assert SiteConfig.read(tmp_path / 'site.yaml').tell == ('pixels', )


# --- messages ---------------------------------------------------------------
def test_a_message_arrives_in_pieces_and_damaged_ones_are_refused(tmp_path):
    spool, content = Spool(tmp_path), os.urandom(1000)
    digest = digest_of(content)
    assert spool.put(digest, 0, content[:400], 1000) == 400
    assert spool.put(digest, 0, content[:400], 1000) == 400  # once more: its answer was lost
    assert not spool.has(digest) and Spool(tmp_path).arrived(digest, 1000) == 400
    assert spool.put(digest, 400, content[400:], 1000) == 1000 and spool.read(digest) == content
    other = digest_of(b'other')
    with pytest.raises(FedSegError, match='damaged on its way'):
        spool.put(other, 0, b'othes', 5)
    assert spool.arrived(other, 5) == 0
    spool.keep([other])
    assert not spool.has(digest)


@pytest.mark.parametrize('digest', ['../../site.yaml', '', 'a' * 63, 'A' * 64, None, 7, ['a']])
def test_only_digests_name_messages(digest, tmp_path):
    desk = Desk(Spool(tmp_path), 'north')
    for head in (dict(op='get', digest=digest, offset=0, length=9), dict(op='arrived', digest=digest, total=1),
                 dict(op='put', digest=digest, offset=0, total=1)):
        reply, content = desk.answer(head, b'x')
        assert 'is not a SHA-256' in reply['refused'] and content == b''


@pytest.mark.parametrize('head', [{}, dict(op='run'), dict(op='work'), dict(op='work', kind='train', args=1, inputs=2),
                                  dict(op='get', digest='a' * 64, offset=0, length=1), dict(op='look')])
def test_a_question_that_makes_no_sense_is_refused_in_a_sentence(head, tmp_path):
    reply, _ = Desk(Spool(tmp_path), 'north').answer(head, b'')
    assert reply.get('refused') or reply.get('state') == 'unknown'


def test_a_socket_is_for_its_user_alone_however_deep_its_folder_is(tmp_path):
    kit = tmp_path / ('deep' * 20) / ('deeper' * 20)
    kit.mkdir(parents=True)
    folder = wire.run_folder(kit)
    with wire.serve(folder / 'x.sock', lambda head, body: (dict(head, seen=True), body[::-1])):
        assert wire.ask(folder / 'x.sock', dict(a=1), b'abc') == (dict(a=1, seen=True), b'cba')
        assert stat.S_IMODE((folder / 'x.sock').stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(OSError):
        wire.ask(folder / 'x.sock', {})


@pytest.mark.parametrize('content', [b'GET / HTTP/1.1\r\n\r\n', b'\xff' * 64, b'\0\0\0\2' + b'\0' * 8 + b'[]',
                                     b'\0\0\0\2' + b'\0' * 8 + b'{]', b''])
def test_what_is_no_message_is_refused(content):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            wire.receive(ours)


# --- kits -------------------------------------------------------------------
def test_kits_are_made_once_and_hold_a_policy_of_one_class(tmp_path):
    pytest.importorskip('nvflare')
    from fedseg_mm.silos.kits import CLASSES, kind_of, provision, site_name, sites_of, write_policy
    kits = provision(tmp_path / 'federation', ['north', 'south'], port=8111)
    assert [kit.name for kit in kits] == ['server', 'admin', 'north', 'south']
    assert all(stat.S_IMODE(kit.stat().st_mode) == 0o700 for kit in kits)
    assert sites_of(kits[0]) == ['north', 'south'] and site_name(kits[2]) == 'north'
    for kit in (kits[0], kits[2]):
        write_policy(kit)
        resources = json.loads((kit / 'local' / 'resources.json').read_text())
        assert resources['class_list_enforcement_mode'] == 'enforce'
        assert resources['class_allow_list'] == CLASSES[kind_of(kit)]
        rights = json.loads((kit / 'local' / 'authorization.json').read_text())['permissions']
        assert {one['byoc'] for one in rights.values()} == {'none'}
        assert {one['shell_commands'] for one in rights.values()} == {'none'}
    assert not json.loads((kits[2] / 'local' / 'resources.json').read_text())['allow_log_streaming']
    with pytest.raises(FedSegError, match='is not empty'):
        provision(tmp_path / 'federation', ['north'])
    (kits[2] / 'custom').mkdir()
    with pytest.raises(FedSegError, match='holds code'):
        write_policy(kits[2])


def test_a_kit_that_is_not_whole_or_not_valid_now_is_refused(tmp_path, monkeypatch):
    pytest.importorskip('nvflare')
    from fedseg_mm.silos import kits
    site = kits.provision(tmp_path / 'federation', ['north'], port=8111)[2]
    kits.check_certificate(site)
    now = datetime.datetime.now(datetime.timezone.utc)
    for days, sentence in ((-400, 'set the clock$'), (40000, 'set the clock, or provision the federation anew')):
        clock = type('Clock', (), dict(now=staticmethod(lambda zone, days=days: now + datetime.timedelta(days))))
        with monkeypatch.context() as patch:
            patch.setattr(kits, 'datetime', SimpleNamespace(datetime=clock, timezone=datetime.timezone))
            with pytest.raises(FedSegError, match=f"is valid from .* but this machine's clock says .*{sentence}"):
                kits.check_certificate(site)
    (site / 'startup' / 'client.crt').write_text('no certificate')
    with pytest.raises(FedSegError, match='client.crt is damaged'):
        kits.check_certificate(site)
    (site / 'startup' / 'client.key').unlink()
    with pytest.raises(FedSegError, match='has no client.key: the kit is not whole'):
        kits.write_policy(site)


@pytest.mark.parametrize('sites, sentence', [
    (['A B'], "the site name 'A B' cannot be used"), (['../x'], 'cannot be used'), (['server'], 'cannot be used'),
    (['north', 'north'], 'two sites are called north'), ([], 'at least one site')])
def test_names_that_cannot_be_used_are_refused(sites, sentence, tmp_path):
    from fedseg_mm.silos.kits import provision
    with pytest.raises(FedSegError, match=sentence):
        provision(tmp_path / 'federation', sites)
