"""What a figure was made with: code, versions, device."""
import platform
import subprocess
from pathlib import Path

import mmengine
import mmseg
import torch

import fedseg_mm

#: What the code is, where the package is a checkout.
CODE = ('fedseg_mm', 'configs', 'tools')


def commit() -> str | None:
    """The checkout's commit, with ``+changes`` if its code differs; None where there is none."""
    root = Path(fedseg_mm.__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(['git', '-C', str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        if not git('ls-files', 'fedseg_mm/version.py'):  # installed inside another project's checkout
            return None
        changed = git('status', '--porcelain', '--', *CODE).strip()
        return git('rev-parse', 'HEAD').strip() + ('+changes' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def device(gpu: bool) -> str:
    """The GPU's name or the CPU's model, and the number of threads."""
    number = torch.get_num_threads() if gpu else 1  # those of the CPU's protocol are told to have one
    threads = f'{number} thread{"s" if number > 1 else ""}'
    if gpu and torch.cuda.is_available():
        return f'{torch.cuda.get_device_name(0)}, {threads}'
    return f'{cpu_model()}, {threads}'


def cpu_model() -> str:
    """What the processor is called."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.machine()


def provenance(gpu: bool) -> dict[str, str | None]:
    """Commit, device and versions of now."""
    return dict(commit=commit(), device=device(gpu), torch=torch.__version__, mmseg=mmseg.__version__,
                mmengine=mmengine.__version__)
