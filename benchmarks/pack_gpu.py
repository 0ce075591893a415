"""Pack what a GPU machine without a network needs beside this checkout and its own torch: wheels, and CamVid.

    python benchmarks/pack_gpu.py gpu_pack.tar --camvid data/camvid
    python benchmarks/pack_gpu.py gpu_pack.tar --python 3.12 --no-wheels

There: tar xf gpu_pack.tar && bash gpu_pack/install.sh, and export FEDSEG_CAMVID=$PWD/gpu_pack/camvid.
torch and triton are not packed: a GPU machine has builds of its own. Prints the size of the parts.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What is there already, and what brings gigabytes of CUDA packages.
LEFT_OUT = ('torch', 'triton')
#: Of CamVid, what is read; the rest of the folder may be archives.
CAMVID = ('img_dir', 'ann_dir')
INSTALL = """#!/usr/bin/env bash
# Into the environment of ${PYTHON:-python}, without a network and without touching its torch.
set -e
here="$(cd "$(dirname "$0")" && pwd)"
"${PYTHON:-python}" -m pip install --no-index --no-deps --find-links "$here/wheels" "$here"/wheels/*.whl
"""


def requirements() -> list[str]:
    """What this package and its tests need, without torch, as pip takes it."""
    import tomllib
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    wanted = [*project['dependencies'], *extras['lite'], *extras['tests']]
    return [one for one in wanted if not any(one.split('>')[0].split('=')[0].strip() == name for name in LEFT_OUT)]


def download(folder: Path, python: str) -> None:
    """Wheels of all that is needed, for Linux and a version of Python; of pure Python, wheels are built."""
    folder.mkdir(parents=True)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    with tempfile.TemporaryDirectory() as name:
        # resolved as here, so that what torch needs too is not among it
        names = Path(name) / 'names.txt'
        names.write_text('\n'.join(requirements()) + '\n')
        report = subprocess.run([*pip, 'install', '--dry-run', '--ignore-installed', '--report', '-', '-r', str(names),
                                 '-c', str(ROOT / 'requirements' / 'tested.txt')],
                                check=True, capture_output=True, text=True).stdout
    for item in json.loads(report)['install']:
        meta = item['metadata']
        name = meta['name'].lower()
        if name in LEFT_OUT or name.startswith(('nvidia-', 'cuda-')):
            continue
        one = f'{meta["name"]}=={meta["version"]}'
        done = subprocess.run([*pip, 'download', '--no-deps', '--only-binary=:all:', '--platform',
                               'manylinux_2_28_x86_64', '--platform', 'manylinux2014_x86_64', '--python-version',
                               python, '-d', str(folder), one])
        if done.returncode:  # a source distribution
            subprocess.run([*pip, 'wheel', '--no-deps', '-w', str(folder), one], check=True)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, help='the archive to write')
    parser.add_argument('--camvid', type=Path, help='folder with CamVid, as fed_prepare_camvid leaves it')
    parser.add_argument('--python', default='3.12', help='version of Python there (default: 3.12)')
    parser.add_argument('--no-wheels', action='store_true', help='only the data')
    args = parser.parse_args(argv)
    if args.camvid is not None and not (args.camvid / 'img_dir' / 'train').is_dir():
        sys.exit(f'there is no CamVid in {args.camvid}: it lacks img_dir/train')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'gpu_pack'
        folder.mkdir()
        if not args.no_wheels:
            download(folder / 'wheels', args.python)
            (folder / 'install.sh').write_text(INSTALL)
        if args.camvid is not None:
            for part in CAMVID:
                shutil.copytree(args.camvid / part, folder / 'camvid' / part)
        for part in sorted(folder.iterdir()):
            print(f'{part.name}: {(size(part) if part.is_dir() else part.stat().st_size) / 1e6:.1f} MB')
        with tarfile.open(args.file, 'w') as archive:  # images and wheels are compressed already
            archive.add(folder, 'gpu_pack')
    print(f'{args.file}: {args.file.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
