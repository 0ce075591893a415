"""Startup kits: who is who in a federation, and what NVFLARE may do on the machine that a kit is used on."""
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.files import parse, read_bytes, write_json

ADMIN = 'admin@fedseg.mm'
#: The one job class at either end, and what NVFLARE itself adds to every job there.
CLASSES = {
    'server': ['fedseg_mm.silos.relay.ServerRelay', 'nvflare.app_common.logging.job_log_receiver.JobLogReceiver'],
    'site': ['fedseg_mm.silos.relay.SiteRelay', 'nvflare.app_common.logging.job_log_streamer.JobLogStreamer'],
}
#: What an administrator may do; nobody may bring code, run commands of the shell, or stop a site from afar.
RIGHTS = dict(submit_job='any', clone_job='none', manage_job='any', download_job='none', view='any', operate='none',
              shell_commands='none', byoc='none')
#: Bytes that a file of settings in a kit has at most.
_MOST_BYTES = 1 << 20
NAME = re.compile(r'[a-z][a-z0-9_-]{0,30}')


def provision(folder: str | Path, sites: Sequence[str], server: str = 'localhost', port: int = 8102) -> list[Path]:
    """Make a federation's certificates, and a startup kit for the server, the administrator and every site.

    Args:
        folder (str or Path): Where the kits go: ``server/``, ``admin/`` and
            ``sites/NAME/``. The key of the certificates' authority stays
            in ``authority/``.
        sites (Sequence[str]): Names of the sites.
        server (str): The server's name, by which sites reach it. Defaults to
            'localhost'.
        port (int): The one port that the server listens at. Defaults to 8102.

    Returns:
        list[Path]: The kits.

    Raises:
        FedSegError: A name cannot be used, or the folder holds kits already.
    """
    folder = Path(folder)
    if wrong := [name for name in sites if not NAME.fullmatch(name) or name in ('server', 'admin', server)]:
        raise FedSegError(f'the site name {wrong[0]!r} cannot be used: take small letters, digits, - and _, at most 31')
    if twice := [name for name in sites if list(sites).count(name) > 1]:
        raise FedSegError(f'two sites are called {twice[0]}: give each a name of its own')
    if not sites:
        raise FedSegError('a federation needs at least one site: name them with --sites')
    if folder.exists() and any(folder.iterdir()):
        raise FedSegError(f'{folder} is not empty: new certificates would not go with kits that are in use; name '
                          'another folder')
    entity = dict(org='fedseg_mm')
    project = dict(
        api_version=3, name='fedseg_mm', description='Federated semantic segmentation',
        participants=[dict(name=server, type='server', fed_learn_port=port, admin_port=port, **entity),
                      *(dict(name=name, type='client', **entity) for name in sites),
                      dict(name=ADMIN, type='admin', role='project_admin', **entity)],
        builders=[dict(path='nvflare.lighter.impl.workspace.WorkspaceBuilder'),
                  dict(path='nvflare.lighter.impl.static_file.StaticFileBuilder',
                       args=dict(config_folder='config', scheme='grpc')),
                  dict(path='nvflare.lighter.impl.cert.CertBuilder')])
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / 'project.yml'
        file.write_text(yaml.safe_dump(project, sort_keys=False), encoding='utf-8')
        done = subprocess.run([sys.executable, '-m', 'nvflare.lighter.provision', '-p', file, '-w', scratch],
                              capture_output=True, text=True, cwd=scratch)
        made = Path(scratch) / 'fedseg_mm' / 'prod_00'
        if done.returncode or not made.is_dir():
            raise FedSegError(f'NVFLARE could not make the certificates: {(done.stdout + done.stderr).strip()[-400:]}')
        kits = {server: folder / 'server', ADMIN: folder / 'admin',
                **{name: folder / 'sites' / name for name in sites}}
        for name, kit in kits.items():
            shutil.copytree(made / name, kit)
        shutil.copytree(made.parent / 'state', folder / 'authority')
    for private in (folder / 'authority', *kits.values()):
        private.chmod(0o700)
    # in the order in which they are the federation's clients
    write_json(folder / 'server' / 'federation.json', dict(sites=list(sites), server=server, port=port))
    return list(kits.values())


def sites_of(kit: Path) -> list[str]:
    """The sites that a server's kit was made for.

    Raises:
        FedSegError: It is no kit of a server.
    """
    try:
        sites = _read(kit / 'federation.json')['sites']
        if not sites or not all(map(NAME.fullmatch, sites)):
            raise ValueError('it names no sites')
        return sites
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedSegError(f"{kit} is no server's startup kit: name the folder server/ that `silo provision` made"
                          ) from error


def _read(file: Path, *keys):
    """What a kit's file of JSON says at some place.

    Raises:
        FedSegError: It says nothing there.
    """
    try:
        content = parse(read_bytes(file, _MOST_BYTES).decode())
        for key in keys:
            content = content[key]
        return content
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FedSegError(f'{file} is damaged: bring the kit here again') from error


def kind_of(kit: Path) -> str:
    """'server' or 'site', as a kit is for.

    Raises:
        FedSegError: It is neither.
    """
    for kind, file in (('server', 'fed_server.json'), ('site', 'fed_client.json')):
        if (kit / 'startup' / file).is_file():
            return kind
    raise FedSegError(f'{kit} is no startup kit of a server or site: name a folder that `silo provision` made')


def check_certificate(kit: Path) -> None:
    """Refuse a kit that lacks a file, or whose certificate is not valid by this machine's clock.

    Raises:
        FedSegError: Says what, and what to do.
    """
    own, startup = {'server': 'server', 'site': 'client'}[kind_of(kit)], kit / 'startup'
    for name in (f'{own}.crt', f'{own}.key', 'rootCA.pem', 'sub_start.sh'):
        if not (startup / name).is_file():
            raise FedSegError(f'{startup} has no {name}: the kit is not whole; bring it here again')
    from cryptography.x509 import load_pem_x509_certificate
    try:
        certificate = load_pem_x509_certificate((startup / f'{own}.crt').read_bytes())
    except ValueError as error:
        raise FedSegError(f'{startup / own}.crt is damaged: bring the kit here again') from error
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise FedSegError(f'the certificate of {kit} is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} '
                          f"UTC, but this machine's clock says {now:%Y-%m-%d %H:%M}: set the clock"
                          + (', or provision the federation anew' if now > last else ''))


def site_name(kit: Path) -> str:
    """What a site's kit calls it."""
    name = _read(kit / 'startup' / 'fed_client.json', 'client', 'fqsn')
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FedSegError(f'{kit} calls its site {shown(name)}, which `silo provision` calls none: bring the kit here '
                          'again')
    return name


def server_of(kit: Path) -> str:
    """Host and port of a site's server."""
    return shown(_read(kit / 'startup' / 'fed_client.json', 'servers', 0, 'service', 'target'))


def write_policy(kit: Path) -> None:
    """Say what jobs may do on this machine, whatever the kit came with.

    Only the relay of this package may be built, no role may bring code of
    its own, and logs stay here.

    Args:
        kit (Path): The startup kit.

    Raises:
        FedSegError: The kit is not whole, not valid now, or holds code.
    """
    check_certificate(kit)
    kind, local = kind_of(kit), kit / 'local'
    resources = _read(local / 'resources.json.default')
    resources['class_list_enforcement_mode'] = 'enforce'
    resources['class_allow_list'] = CLASSES[kind]
    if kind == 'server':
        store = str((kit / 'run').resolve())
        resources['snapshot_persistor']['args']['storage']['args']['root_dir'] = f'{store}/snapshots'
        for component in resources['components']:
            if component['id'] == 'job_manager':
                component['args']['uri_root'] = f'{store}/jobs'
    else:
        resources['allow_log_streaming'] = False
        resources['components'] = [part for part in resources['components'] if part['id'] != 'site_log_streamer']
    write_json(local / 'resources.json', resources)
    write_json(local / 'authorization.json', dict(format_version='1.0', permissions={
        'project_admin': RIGHTS, **{role: dict.fromkeys(RIGHTS, 'none') for role in ('org_admin', 'lead', 'member')}}))
    for custom in (kit / 'custom', local / 'custom'):
        if custom.exists():
            raise FedSegError(f'{custom} holds code that this package does not know of: remove it')


def nvflare_command(kit: Path) -> tuple[list[str], dict[str, str]]:
    """What starts NVFLARE with a kit: the command, and its environment."""
    environment = {**os.environ, 'FEDSEG_MM_RELAY': '1',
                   # pieces of messages go back to the system when they are freed, instead of leaving holes
                   'MALLOC_MMAP_THRESHOLD_': '1048576',
                   'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}'}
    return ['bash', str(kit / 'startup' / 'sub_start.sh'), '--once'], environment
