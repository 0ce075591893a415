"""Two sites, and trainings across them without a network."""
import pytest

from fedseg_mm.silos import site_link
from tests.test_silos.sites import DirectJob, across_sites, make_kits, make_sites, train


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """The sites' images, read-only."""
    folder = tmp_path_factory.mktemp('sites')
    make_sites(folder)
    return folder


@pytest.fixture
def kits(data, tmp_path):
    return make_kits(tmp_path / 'kits', data)


@pytest.fixture
def run(data, kits, tmp_path, monkeypatch):
    """Train across the sites, by a way to them that may lose messages."""

    def start(name: str = 'work', job: DirectJob | None = None, **changes):
        return train(across_sites(data, kits, tmp_path / name, monkeypatch, job, **changes))

    return start


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr(site_link, 'PAUSES', (0.01, 0.01))
