"""`fedseg_mm COMMAND`, also as `python -m fedseg_mm COMMAND`: the tools, where there may be no checkout."""
import importlib
import sys
from pathlib import Path

COMMANDS = {
    'train': 'train a segmentor with federated learning (tools/fed_train.py)',
    'test': 'evaluate a checkpoint (tools/test.py)',
    'init': 'look at a folder of images and masks, and write the config that trains on it (tools/fed_init.py)',
    'report': 'write a page with curves, classes and clients of runs (tools/fed_report.py)',
    'partition': 'show which client holds and annotates what (tools/fed_partition.py)',
    'gradients': 'compare the gradients of a method\'s loss terms with those of all labels (tools/fed_gradients.py)',
    'publish': 'write a checkpoint\'s segmentor as MMSegmentation\'s model zoo does (tools/fed_publish.py)',
    'demo': 'train the embedded federation with and without BackCE, and compare (tools/demo.py)',
    'prepare_camvid': 'bring the public download of CamVid into MMSegmentation\'s layout (tools/prepare_camvid.py)',
}
USAGE = 'usage: {own} COMMAND ARGUMENTS...\n\n' + '\n'.join(
    f'  {name:16s}{what}' for name, what in COMMANDS.items()) + """

{own} COMMAND --help says more. Configs that the package ships are named like
fedseg_mm::fedavg/upernet_streetscenes_noniid1_backce.py, those of MMSegmentation like
mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py."""


def main() -> None:
    usage = USAGE.format(own='fedseg_mm' if Path(sys.argv[0]).name == 'fedseg_mm' else 'python -m fedseg_mm')
    command = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if command in ('-h', '--help'):
        print(usage)
    elif command == '--version':
        print(importlib.import_module('fedseg_mm').__version__)
    elif command in COMMANDS:
        importlib.import_module(f'fedseg_mm.cli.{command}').main(sys.argv[2:])
    else:
        sys.exit(f'fedseg_mm: there is no command {command}\n{usage}')


if __name__ == '__main__':
    # a worker process that is spawned runs this file again, unless it was started as a module: it would then know
    # nothing of this package, without which MMSegmentation cannot be imported everywhere
    __spec__ = None
    main()
elif __name__ == '__mp_main__':
    importlib.import_module('fedseg_mm')
