"""The names of commands and configs, as the user has them; imports nothing that takes time."""
import re
import sys
from pathlib import Path

#: Commands, their files in a checkout, and what they do.
COMMANDS = {
    'train': ('tools/fed_train.py', 'train a segmentor with federated learning'),
    'test': ('tools/test.py', 'evaluate a checkpoint'),
    'init': ('tools/fed_init.py', 'look at a folder of images and masks, and write the config that trains on it'),
    'report': ('tools/fed_report.py', 'write a page with the curves, classes and clients of runs'),
    'partition': ('tools/fed_partition.py', 'show which client holds and annotates what'),
    'gradients': ('tools/fed_gradients.py', "compare the gradients of a method's loss terms with those of all labels"),
    'publish': ('tools/fed_publish.py', "write a checkpoint's segmentor as MMSegmentation's model zoo does"),
    'silo': ('tools/fed_silo.py', 'train across sites whose images stay where they are'),
    'demo': ('tools/demo.py', 'train the built-in federation with and without BackCE, and compare'),
    'prepare_camvid': ('tools/prepare_camvid.py', "bring the public download of CamVid into MMSegmentation's layout"),
}
#: What --cfg-options takes.
CFG_OPTIONS_HELP = ('override settings of the config, as key=value pairs; nested keys are joined by dots, lists are '
                    'written key="[a,b]" or key=a,b')
#: A tool's path in a text, unless it is MMSegmentation's own.
_TOOL = r'(?<!own )tools/(?:fed_)?(\w+)\.py'


def command() -> str | None:
    """How the user called the package: by its command, as a module, or (None) by a tool of a checkout."""
    called = Path(sys.argv[0])
    if called.name == 'fedseg_mm':
        return 'fedseg_mm'
    # sys.argv[0] is -m until Python has found the module
    if called.parts[-2:] == ('fedseg_mm', '__main__.py') or (
            called.name == '-m' and sys.orig_argv[-len(sys.argv):][:1] == ['fedseg_mm']):
        return 'python -m fedseg_mm'
    return None


def called(tool: str) -> str:
    """A tool such as ``fed_train`` in the words by which the user calls it, such as ``fedseg_mm train``."""
    own = command()
    return tool if own is None else f'{own} {tool.removeprefix("fed_")}'


#: Actions of `silo` that keep other processes up, for weeks perhaps, or look after them: `train` without `--once` too.
_WITHOUT_TORCH = ('provision', 'serve', 'start', 'train', 'status', 'stop')


def needs_no_torch() -> bool:
    """Whether what the user has called neither trains nor evaluates in its own process."""
    words = getattr(sys, 'argv', None) or ['']
    words = words[1:] if command() else ['silo', *words[1:]] if Path(words[0]).name == 'fed_silo.py' else []
    return words[:1] == ['silo'] and words[1:2] != [] and words[1] in _WITHOUT_TORCH and '--once' not in words


def asks_for_help() -> bool:
    """Whether one of the package's own commands is asked what it takes: the answer needs no torch."""
    if not getattr(sys, 'argv', None):  # Python within another program
        return False
    words = sys.argv[1:]
    asked = not {'-h', '--help'}.isdisjoint(words)
    if command():
        return asked or not words or words[0] == '--version'
    package = Path(__file__).resolve().parent
    tools = [root / tool for root in (package.parent, package / '.mim') for tool, _ in COMMANDS.values()]
    return asked and Path(sys.argv[0]).resolve() in tools


def as_called(text: str) -> str:
    """A text in which tools and configs are named as the user has them.

    Args:
        text (str): It names tools and configs as in a checkout, such as
            ``python tools/fed_train.py configs/fedseg/…``.

    Returns:
        str: The same; or, where there may be no checkout,
        ``fedseg_mm train fedseg_mm::fedseg/…`` or, under ``python -m
        fedseg_mm``, the same as a module.
    """
    own = command()
    if own is None:
        return text
    # torchrun starts modules, and no commands
    text = re.sub(rf'(--nproc_per_node=\d+) {_TOOL}', r'\1 -m fedseg_mm \2', text)
    text = re.sub(rf'(?:python )?{_TOOL}', rf'{own} \1', text)
    return re.sub(r'(?<![\w/.])configs/(?=\w)', 'fedseg_mm::', text)
