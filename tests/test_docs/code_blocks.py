"""The code of README.md and docs/, block by block, and how a test runs or checks it.

Above every block of shell commands stands a comment that a reader does not see:

    <!-- run -->                             as it stands
    <!-- run with: KEY=VALUE ... -->         with further --cfg-options, so that it takes seconds
    <!-- run with checkpoint: FILE -->       with this checkpoint in the place of the one of a whole training
    <!-- run ... prints: TEXT -->            and its output holds the text
    <!-- not run: REASON -->                 commands, flags, options and files are checked
"""
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from fedseg_mm.cli import arguments
from fedseg_mm.config import find_config, load_config
from fedseg_mm.console import COMMANDS
from tests.conftest import ROOT

PAGES = ['README.md', *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'docs').rglob('*.md'))]
TOOLS = {tool: name for name, (tool, _) in COMMANDS.items()}
MARK = re.compile(r'<!-- (?P<kind>not run|run)(?: with: (?P<options>.*?))?(?: with checkpoint: (?P<checkpoint>\S+))?'
                  r'(?: prints: (?P<prints>.*?))?(?:: (?P<reason>.+))? -->')


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language (str): After the fence.
        text (str): Its lines.
        mark (re.Match, optional): The comment above it.
        line (int): Of the fence, from 1.
    """
    language: str
    text: str
    mark: re.Match | None
    line: int

    @property
    def file_name(self) -> str | None:
        """The file that it is, where its first line names one."""
        found = re.match(r'# (\w+\.\w+)\b', self.text)
        return found and found[1]

    def commands(self) -> list[str]:
        """One per command, with continued lines joined and comments left out."""
        return [line for line in self.text.replace('\\\n', ' ').splitlines() if line.strip() and line[0] != '#']


def blocks(page: str) -> list[Block]:
    found, lines, place = [], (ROOT / page).read_text(encoding='utf-8').splitlines(), 0
    while place < len(lines):
        if lines[place].startswith('```'):
            end = lines.index('```', place + 1)
            mark = MARK.fullmatch(lines[place - 1]) if lines[place - 1].startswith('<!--') else None
            found.append(Block(lines[place][3:], '\n'.join(lines[place + 1:end]) + '\n', mark, place + 1))
            place = end
        place += 1
    return found


def indented_code(page: str) -> Iterator[int]:
    """Lines of code without a fence, which nothing would check."""
    fenced = False
    lines = (ROOT / page).read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines):
        fenced ^= line.startswith('```')
        if not fenced and line.startswith('    ') and not lines[number - 1]:
            yield number + 1


def make_workspace(folder: Path) -> None:
    """What a reader has: a clone, and five-class images in data/mine."""
    for name in ('tools', 'configs', 'benchmarks', 'results', 'requirements', 'docs'):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.RandomState(0)
    for kind in ('images', 'masks'):
        (folder / 'data' / 'mine' / kind).mkdir(parents=True)
    for i in range(15):
        label = np.repeat(rng.permutation(5), 32)[None].repeat(120, 0).astype(np.uint8)
        image = (np.array([[90, 60, 60], [30, 30, 200], [40, 140, 60], [220, 180, 120], [60, 30, 160]])[label]
                 + rng.normal(0, 12, (120, 160, 3))).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / 'data' / 'mine' / 'images' / f'{i:02d}.jpg'), image)
        cv2.imwrite(str(folder / 'data' / 'mine' / 'masks' / f'{i:02d}.png'), label)


# --- commands that take too long are looked at -----------------------------------
def is_placeholder(word: str) -> bool:
    """CONFIG, work_dirs/CONFIG_NAME/round_N.pth: what a reader puts own names for."""
    return bool(re.search(r'\b[A-Z]{3,}\b|\b[A-Z]+_[A-Z]+\b|_N\.pth', word))


def check_command(command: str, variables: dict[str, str]) -> None:
    """Whether the command, its flags, options and files exist; an AssertionError says what does not.

    Args:
        command (str): A line of shell, from the workspace's folder.
        variables (dict[str, str]): Those set by lines before; extended.
    """
    for name, value in variables.items():
        command = command.replace(f'${name}', value)
    for part in command.split(' && '):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
            name, value = words.pop(0).split('=', 1)
            variables[name] = value
        if words:
            _check_words(words)


def _check_words(words: list[str]) -> None:
    if words[0] == 'torchrun':
        words = ['python', *(word for word in words[1:] if not word.startswith('--nproc_per_node='))]
    if words[0] == 'fedseg_mm':
        words = ['python', '-m', *words]
    program, *rest = words
    if program == 'make':
        assert re.search(rf'^{rest[0]}:', (ROOT / 'Makefile').read_text(), re.MULTILINE), f'no target {rest[0]}'
    elif program == 'pip':
        assert rest[0] in ('install', 'wheel'), rest
        for extra in re.findall(r'\[([\w,]+)\]', ' '.join(rest)):
            for name in extra.split(','):
                assert re.search(rf'^{name} = \[', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE), name
        for word in rest:
            assert '/' not in word or (ROOT / word).exists(), word
    elif program in ('python', 'python3') and rest[0] == '-m':
        if rest[1] == 'fedseg_mm':
            assert rest[2] in COMMANDS, rest
            parse(rest[2], rest[3:])
        elif rest[1] == 'pytest':
            for word in rest[2:]:
                assert '/' not in word or (ROOT / word).exists(), word
        else:
            assert rest[1] in ('venv', 'pytest') or (ROOT / f'{rest[1].replace(".", "/")}.py').is_file(), rest
    elif program == 'python':
        script = rest[0]
        assert Path(script).is_file() or (ROOT / script).is_file(), f'no file {script}'
        if '--help' in rest:
            assert script in TOOLS
        elif script in TOOLS:
            parse(TOOLS[script], rest[1:])
        elif script == 'tools/reproduce.py':
            from reproduction.cli import parse_args, wanted_runs
            from reproduction.protocol import PROTOCOLS
            stands_for = dict(ROW='FedSeg', SETTINGS='randomness.seed=0')
            args = parse_args([stands_for.get(word, word) for word in rest[1:]])
            wanted_runs(args, PROTOCOLS[args.protocol])
        else:
            text = (ROOT / script).read_text() + (ROOT / 'benchmarks' / 'measure.py').read_text()
            for word in rest[1:]:
                assert not word.startswith('--') or f"'{word}'" in text, f'{script} has no {word}'
    elif program == 'bash':
        packed = re.search(r"'(\w+\.sh)'", (ROOT / 'benchmarks' / 'pack_gpu.py').read_text())
        assert (ROOT / rest[0]).is_file() or packed and rest[0] == f'gpu_pack/{packed[1]}', f'no file {rest[0]}'
    else:
        known = words[:2] in (['.', '.venv/bin/activate'], ['tar', 'xf'])
        assert known or program == 'export' and re.match(r'[A-Z_]+=\S', rest[0]), f'unknown command {words}'


def parse(name: str, argv: list[str]) -> None:
    """A tool's own parser reads its arguments; the files and the settings that they name are there."""
    args = getattr(arguments, name)(argv)
    for given in ('config', 'federated', 'data'):
        value = getattr(args, given, None)
        if value is not None and not is_placeholder(value):
            find_config(value)
    config = getattr(args, 'config', None)
    if config and not is_placeholder(config):
        load_config(config, getattr(args, 'cfg_options', None), getattr(args, 'federated', None),
                    data=getattr(args, 'data', None))
        known = Config.fromfile(find_config(config))
        for key in (getattr(args, 'cfg_options', None) or {}):
            section = key.split('.')[0]
            assert section in known or getattr(args, 'federated', None), f'{config} has no {section}'


def with_options(words: list[str], mark: re.Match) -> list[str]:
    """A tool's arguments with what the mark adds."""
    if mark['checkpoint']:
        words = [re.sub(r'round_\d+\.pth$', mark['checkpoint'], word) for word in words]
    if mark['options'] and words[0] in ('tools/fed_train.py', ):
        words = [*words, *([] if '--cfg-options' in words else ['--cfg-options']), *mark['options'].split()]
    return words


def environment(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """``NAME=VALUE`` before a command, and the command."""
    found = {}
    while re.fullmatch(r'[A-Z_]+=.*', words[0]):
        name, value = words[0].split('=', 1)
        found[name], words = value, words[1:]
    return {**{name: os.environ[name] for name in ('PATH', ) if name in os.environ}, **found}, words
