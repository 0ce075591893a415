"""Pack what a GPU machine without a network needs beside this checkout and its own torch: wheels, and CamVid.

    python benchmarks/pack_gpu.py gpu_pack.tar --camvid data/camvid
    python benchmarks/pack_gpu.py gpu_pack.tar --python 3.12 --no-wheels

There: tar xf gpu_pack.tar && bash gpu_pack/install.sh, and export FEDSEG_CAMVID=$PWD/gpu_pack/camvid.
torch and triton are not packed: a GPU machine has builds of its own. Prints the size of the parts.
"""
import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    """What this package with its tests needs, all the way down but for torch, in the versions of this environment."""
    found: dict[str, str] = {}
    wanted = [('fedseg_mm', 'lite'), ('fedseg_mm', 'tests')]
    seen = set(wanted)
    while wanted:
        name, extra = wanted.pop()
        distribution = metadata.distribution(name)
        if name != 'fedseg_mm':
            found[canonicalize_name(name)] = f'{name}=={distribution.version}'
        for line in distribution.requires or []:
            one = Requirement(line)
            if canonicalize_name(one.name) in LEFT_OUT or (one.marker and not one.marker.evaluate({'extra': extra})):
                continue
            new = [(one.name, needed) for needed in one.extras or ('', )]
            wanted += [pair for pair in new if pair not in seen]
            seen.update(new)
    return sorted(found.values())


def download(folder: Path, python: str) -> None:
    """Wheels of all that is needed, for Linux and a version of Python; of pure Python, wheels are built."""
    folder.mkdir(parents=True)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    for one in requirements():
        done = subprocess.run([*pip, 'download', '--no-deps', '--only-binary=:all:', '--platform',
                               'manylinux_2_28_x86_64', '--platform', 'manylinux2014_x86_64', '--python-version',
                               python, '-d', str(folder), one], stderr=subprocess.DEVNULL)
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
