"""Writes docs/reference.md and docs/api.md: every key and class of a config, from signatures and docstrings.

    python docs/generate.py
"""
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import fedseg_mm  # noqa: F401  first: it makes mmseg importable

# isort: split
from mmengine import registry as mmengine_registries
from mmengine.registry import Registry
from mmseg import registry as mmseg_registries
from mmseg.utils import register_all_modules

from fedseg_mm import registry as own_registries
from fedseg_mm.aggregators import Aggregator
from fedseg_mm.aggregators.cohort_aggregator import CohortAggregator
from fedseg_mm.algorithms import FedAvg
from fedseg_mm.algorithms.batch_norm_policy import BatchNormPolicy
from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.datasets import ClientShard, Partition, Partitioner
from fedseg_mm.engine import Backend, FederatedTrainLoop
from fedseg_mm.federation import Federation
from fedseg_mm.processors.compression import Compression
from fedseg_mm.processors.update_processor import ProcessorContext, UpdateProcessor
from fedseg_mm.registry import constructor_parameters
from fedseg_mm.samplers import ClientSampler
from fedseg_mm.structures import Broadcast, ClientContext, ClientFailure, ClientUpdate, FederationInfo

HERE = Path(__file__).parent
#: What MMEngine's runner hands to the loop; a config does not give them.
GIVEN_BY_RUNNER = ('runner', 'dataloader', 'federated')
#: Title, the key of a config that builds it, registry.
PARTS = (
    ('Partitioners', '`federated.partitioner`', own_registries.PARTITIONERS),
    ('Client samplers', '`federated.sampler`', own_registries.CLIENT_SAMPLERS),
    ('Algorithms', '`federated.algorithm`', own_registries.ALGORITHMS),
    ('Batch-norm policies', '`federated.algorithm.batch_norm`, by name', own_registries.BATCH_NORM_POLICIES),
    ('Update processors', '`federated.processors`, a list', own_registries.UPDATE_PROCESSORS),
    ('Aggregators', '`federated.aggregator`', own_registries.AGGREGATORS),
    ('Attacks', '`federated.attacks`, a list', own_registries.ATTACKS),
    ('Backends', '`federated.backend`', own_registries.BACKENDS),
)
#: Of the registries of MMEngine and MMSegmentation.
ELSEWHERE = 'Models, losses, data sets, transforms, hooks, …'
SEAMS = (FedAvg, ClientContext, FederationInfo, Broadcast, ClientUpdate, ClientFailure, Partitioner, Partition,
         ClientShard, ClientSampler, UpdateProcessor, ProcessorContext, Compression, Aggregator, CohortAggregator,
         BatchNormPolicy, Attack, HonestUpdates, Backend)


# --- docstrings -> Markdown ---------------------------------------------------
def markdown(text: str) -> str:
    """A docstring's prose: its roles, formulas and examples as Markdown."""
    text = re.sub(r'\.\. math::\n((?:[ \t]+.*\n?|\n)+)',
                  lambda found: '$$\n' + dedent(found[1]).strip() + '\n$$\n', text + '\n')
    text = re.sub(r':math:`([^`]+)`', r'$\1$', text)
    text = re.sub(r':\w+:`~?(?:[\w.]*\.)?(\w+)`', r'`\1`', text)
    text = text.replace('``', '`')
    return re.sub(r'(\S)::\n\n((?:    .*\n|\n)+)',
                  lambda found: f'{found[1]}:\n\n```text\n{dedent(found[2]).strip()}\n```\n\n', text).strip()


def sections(cls_or_function) -> tuple[str, dict[str, str]]:
    """The prose of a docstring, and its sections (Args, Returns, Raises) by title."""
    text = inspect.cleandoc(cls_or_function.__doc__ or '')
    prose, *rest = re.split(r'^(Args|Returns|Raises):\n', text, flags=re.MULTILINE)
    return prose.strip(), {title: dedent(body).strip() for title, body in zip(rest[::2], rest[1::2])}


def arguments(body: str) -> dict[str, tuple[str, str]]:
    """Type and description of each argument of an ``Args`` section."""
    found = re.findall(r'^(\w+)(?: \(((?:[^()]|\([^()]*\))+)\))?:\s+(.*(?:\n(?:[ \t]+.*|\s*))*)', body, re.MULTILINE)
    return {name: (kind or '', dedent(' ' * 100 + text).strip()) for name, kind, text in found}


def documented_arguments(cls: type) -> dict[str, tuple[str, str]]:
    """Those of a class and, where it says no more about them, of its bases."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__):
        if '__doc__' in vars(base) and base.__module__.startswith('fedseg_mm'):
            found.update(arguments(sections(base)[1].get('Args', '')))
    return found


def one_line(text: str) -> str:
    """For a table's cell; a formula in it stays in the line."""
    text = re.sub(r'\$\$\s*(.*?)\s*\$\$', r'$\1$', markdown(text), flags=re.DOTALL)
    return re.sub(r'\s+', ' ', text).replace('|', '\\|')


def default_of(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return 'required'
    return f'`{parameter.default!r}`'.replace('|', '\\|')


def stated_by(cls: type, name: str) -> type:
    """The class of MMEngine or MMSegmentation that documents an argument."""
    return next(base for base in cls.__mro__ if not base.__module__.startswith('fedseg_mm')
                and '__init__' in vars(base) and name in inspect.signature(base).parameters)


def argument_table(cls: type, key: str = '', without: tuple[str, ...] = ()) -> list[str]:
    rows, described = [], documented_arguments(cls)
    parameters = {name: p for name, p in constructor_parameters(cls).items() if name not in without}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name == 'self':
            continue
        kind, text = described.get(name) or ('', f'as in `{stated_by(cls, name).__name__}`')
        kind = kind.removesuffix(', optional').replace('|', '\\|')
        if parameter.default is not None:  # the table has a column for it
            stated = '|'.join({re.escape(str(parameter.default)), re.escape(repr(parameter.default)),
                               re.escape(f'{parameter.default:g}') if type(parameter.default) is float else 'nothing'})
            text = re.sub(rf'\s*Defaults\s+to\s+(?:{stated})\.(?=\s|$)', '', text)
        rows.append(f'| `{key}{name}` | {kind} | {default_of(parameter)} | {one_line(text)} |')
    return ['| key | type | default | meaning |', '|---|---|---|---|', *rows] if rows else ['It takes no arguments.']


# --- reference.md -------------------------------------------------------------
def registered_elsewhere() -> Iterator[tuple[str, str, type]]:
    """Registry, name and class of what this package adds to MMEngine's and MMSegmentation's registries."""
    found: dict[tuple[str, str], tuple[str, type]] = {}
    for place in (mmengine_registries, mmseg_registries):
        for registry_name, registry in vars(place).items():
            if isinstance(registry, Registry):
                for name, cls in registry.module_dict.items():
                    if inspect.isclass(cls) and cls.__module__.startswith('fedseg_mm'):
                        found[registry.name, name] = (registry_name, cls)
    for (_, name), (registry_name, cls) in sorted(found.items()):
        yield registry_name, name, cls


def describe(name: str, cls: type, note: str = '') -> list[str]:
    prose, _ = sections(cls)
    return [f'### {name}', '', *([note, ''] if note else []), markdown(prose), '',
            *argument_table(cls), '']


def reference() -> str:
    register_all_modules()
    lines = [
        '# All keys of a config', '',
        "Every key of `federated` and of the federated `train_cfg`, and every class that the package registers, with "
        "its arguments and their defaults. All other keys of a config are MMEngine's and MMSegmentation's. A class is "
        "named by `type`, such as `algorithm=dict(type='FedProx', mu=0.01)`; on the command line, "
        '`--cfg-options federated.algorithm.mu=0.01`.', '',
        'Made from the signatures and docstrings by `python docs/generate.py`.', '',
        '## `federated`', '', markdown(sections(Federation)[0]), '',
        *argument_table(Federation, 'federated.'), '',
        '## `train_cfg`', '', markdown(sections(FederatedTrainLoop)[0]), '',
        *argument_table(FederatedTrainLoop, 'train_cfg.', GIVEN_BY_RUNNER), '',
    ]
    for title, key, registry in PARTS:
        lines += [f'## {title}', '', f'Key: {key}.', '']
        for name, cls in sorted(registry.module_dict.items()):
            if cls.__module__.startswith('fedseg_mm'):
                lines += describe(name, cls)
    lines += [f'## {ELSEWHERE}', '', 'Registered in the registries of MMEngine and MMSegmentation.', '']
    for registry_name, name, cls in registered_elsewhere():
        if cls is not FederatedTrainLoop:
            lines += describe(name, cls, f'Registry: `{registry_name}`.')
    return '\n'.join(lines).rstrip() + '\n'


# --- api.md -------------------------------------------------------------------
def public_members(cls: type) -> Iterator[tuple[str, object]]:
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else getattr(member, '__func__', member)
        if not name.startswith('_') and inspect.isfunction(function) and function.__doc__:
            yield name, member


def signature(name: str, member) -> str:
    if isinstance(member, property):
        return name
    function = getattr(member, '__func__', member)
    parameters = [str(p.replace(annotation=p.empty)) for p in inspect.signature(function).parameters.values()
                  if p.name not in ('self', 'cls')]
    return f'{name}({", ".join(parameters)})'


def member_lines(name: str, member) -> list[str]:
    function = member.fget if isinstance(member, property) else getattr(member, '__func__', member)
    prose, parts = sections(function)
    lines = [f'#### `{signature(name, member)}`', '', markdown(prose), '']
    for argument, (kind, text) in arguments(parts.get('Args', '')).items():
        lines.append(f'- `{argument}`{f" ({kind})" if kind else ""}: {one_line(text)}')
    for title in ('Returns', 'Raises'):
        if title in parts:
            lines.append(f'- {title}: {one_line(parts[title])}')
    return lines if lines[-1] == '' else [*lines, '']


def api() -> str:
    lines = [
        '# API', '',
        'The classes that an extension derives from or is given, with all that it may override or read. '
        '[Extending](extending.md) has examples that run. Made from the docstrings by `python docs/generate.py`.', '',
    ]
    for cls in SEAMS:
        prose, parts = sections(cls)
        lines += [f'## {cls.__name__}', '', f'`{cls.__module__}`', '', markdown(prose), '']
        described = arguments(parts.get('Args', ''))
        if described and dataclasses.is_dataclass(cls):
            lines += ['| field | type | meaning |', '|---|---|---|']
            lines += [f'| `{name}` | {kind.replace("|", chr(92) + "|")} | {one_line(text)} |'
                      for name, (kind, text) in described.items()] + ['']
        elif described:
            lines += [*argument_table(cls), '']
        for name, member in public_members(cls):
            lines += member_lines(name, member)
    return '\n'.join(lines).rstrip() + '\n'


PAGES = {'reference.md': reference, 'api.md': api}

if __name__ == '__main__':
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding='utf-8')
