"""requirements/tested.txt says which version of every package was tested."""
import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

#: A build for CUDA may stay as it is; the others are everybody's own.
NOT_NAMED = {'torch', 'fedseg-mm', 'pip', 'setuptools', 'triton'}


def needed(requirements: list[str], extras: frozenset = frozenset()) -> set[str]:
    """Names of all packages that requirements bring along, as far as they are installed."""
    found: set[tuple[str, frozenset]] = set()
    left = [(text, extras) for text in requirements]
    while left:
        text, extras = left.pop()
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate(dict(extra=extra)) for extra in extras or ('', )):
            continue
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in found or name in NOT_NAMED or name.startswith('nvidia-'):
            continue
        found.add((name, wanted))
        try:
            left += [(one, wanted or frozenset({''})) for one in importlib.metadata.requires(name) or ()]
        except importlib.metadata.PackageNotFoundError:
            found.discard((name, wanted))
    return {name for name, _ in found}


def test_every_package_of_the_environment_has_its_tested_version():
    tomllib = pytest.importorskip('tomllib')
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    wanted = [*project['dependencies'], *(one for extra in ('lite', 'tests', 'docs', 'silos', 'privacy', 'lite0')
                                          for one in extras[extra])]
    lines = [line for line in (ROOT / 'requirements' / 'tested.txt').read_text().splitlines()
             if line and not line.startswith('#')]
    assert all(re.fullmatch(r'[a-z0-9-]+==[^;=<>~]+(; python_version (<|>=) "3\.1\d")?', line) for line in lines)
    locked = {canonicalize_name(Requirement(line).name) for line in lines}
    found = needed(wanted)
    assert len(found) > 50 and not found - locked
