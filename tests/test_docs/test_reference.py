"""The reference covers every key and every registered class, with its arguments and their defaults."""
import ast
import importlib.util
import inspect
import re

import pytest
from mmengine import registry as mmengine_registries
from mmengine.registry import Registry
from mmseg import registry as mmseg_registries

from fedseg_mm import registry as own_registries
from fedseg_mm.engine import FederatedTrainLoop
from fedseg_mm.federation import Federation
from tests.conftest import ROOT

REFERENCE = (ROOT / 'docs' / 'reference.md').read_text(encoding='utf-8')


def load_generator():
    spec = importlib.util.spec_from_file_location('generate', ROOT / 'docs' / 'generate.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def registered_in_the_source() -> list[str]:
    """Names of all classes under a ``register_module`` in the package, read from its source."""
    names = []
    for path in sorted((ROOT / 'fedseg_mm').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            for decorator in getattr(node, 'decorator_list', ()):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, 'attr', '') == 'register_module':
                    names.append(decorator.args[0].value if decorator.args else node.name)
    return names


def class_of(name: str) -> type:
    for place in (own_registries, mmengine_registries, mmseg_registries):
        for registry in vars(place).values():
            found = registry.module_dict.get(name) if isinstance(registry, Registry) else None
            if inspect.isclass(found) and found.__module__.startswith('fedseg_mm'):
                return found
    raise AssertionError(f'{name} is in no registry')


def rows(section: str) -> dict[str, tuple[str, str]]:
    """Default and meaning of each key in a section's table."""
    return {key: (default, meaning) for key, _, default, meaning in
            re.findall(r'^\| `([^`]+)` \| (.*?) \| (required|`.*?`) \| (.+) \|$', section, re.MULTILINE)}


def section(title: str, level: int = 3) -> str:
    found = re.search(rf'^{"#" * level} {title}\n(.*?)(?=^#{{2,{level}}} |\Z)', REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, f'no section {title}'
    return found[1]


def takes(cls: type) -> dict[str, inspect.Parameter]:
    """What a config may give: the constructor's own arguments, and those of the base where it passes them on."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if '__init__' in vars(base) and base is not object:
            own = inspect.signature(base.__init__).parameters
            found = {**{name: p for name, p in own.items()
                        if name != 'self' and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}, **found}
            if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
                break
    return found


def assert_covered(parameters: dict[str, inspect.Parameter], text: str, prefix: str = '') -> None:
    there = rows(text)
    assert set(there) == {prefix + name for name in parameters}
    for name, parameter in parameters.items():
        default, meaning = there[prefix + name]
        if parameter.default is parameter.empty:
            assert default == 'required', name
        else:
            assert default.strip('`').replace('\\|', '|') == repr(parameter.default), name
        assert meaning.strip(), name


def test_every_key_of_federated():
    parameters = takes(Federation)
    assert {'partitioner', 'sampler', 'aggregator', 'processors', 'backend', 'min_clients'} < set(parameters)
    assert_covered(parameters, section('`federated`', 2), 'federated.')


def test_every_key_of_train_cfg():
    parameters = {name: p for name, p in takes(FederatedTrainLoop).items()
                  if name not in ('runner', 'dataloader', 'federated')}
    assert 'max_rounds' in parameters
    assert_covered(parameters, section('`train_cfg`', 2), 'train_cfg.')


def test_there_are_registered_classes():
    assert len(registered_in_the_source()) > 50


@pytest.mark.parametrize('name', [name for name in registered_in_the_source() if name != 'FederatedTrainLoop'])
def test_every_registered_class(name):
    cls, text = class_of(name), section(name)
    first = re.split(r'[:`.\n]', inspect.cleandoc(cls.__doc__))[0]
    assert first in text
    assert_covered(takes(cls), text)


@pytest.mark.parametrize('page', ['reference.md', 'api.md'])
def test_the_page_is_that_of_the_code(page):
    assert (ROOT / 'docs' / page).read_text(encoding='utf-8') == load_generator().PAGES[page](), \
        'run `python docs/generate.py`'
