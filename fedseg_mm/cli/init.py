"""A config for a folder of images and masks."""
from pathlib import Path

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import one_sentence_errors
from fedseg_mm.config.look_at_folder import config_for, evaluated, look_at_folder
from fedseg_mm.console import as_called
from fedseg_mm.datasets.labels import VOID
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write


def main(argv: list[str] | None = None) -> None:
    args = arguments.init(argv)
    with one_sentence_errors('fed_init'):
        out = args.out or Path(f'{args.folder.resolve().name}.py')
        if out.suffix != '.py':
            raise FedSegError(f'--out {out} must end in .py')
        if out.exists():
            raise FedSegError(f'{out} exists: move it away, or name another with --out')
        found = look_at_folder(args.folder)
        lists = out.with_name(f'{out.stem}_lists')
        text = config_for(found, args.classes, args.clients, args.model, lists)
        if not found.train:
            kept = set(evaluated(found))
            for split, names in (('train', [name for name in found.names if name not in kept]), ('val', sorted(kept))):
                with atomic_write(lists / f'{split}.txt') as file:
                    file.write_text('\n'.join(names) + '\n', encoding='utf-8')
        with atomic_write(out) as file:
            file.write_text(text, encoding='utf-8')
        print(f'Images       {found.root / found.images / found.train}: {len(found.names)} ending in '
              f'{found.img_suffix}, masks in {found.masks}/ ending in {found.seg_map_suffix}')
        print('Labels       ' + ', '.join(f'{"void" if value == VOID else value} ({100 * share:.1f} %)'
                                          for value, share in found.shares.items()))
        if not found.train:
            print(f'Split        {len(found.names) - len(kept)} for training and {len(kept)} for evaluation: {lists}')
        print(f'Config       {out}')
        for title, command in (('Look', f'python tools/fed_partition.py {out} --show'),
                               ('Train', f'python tools/fed_train.py {out}')):
            print(f'{title:13s}{as_called(command)}')
