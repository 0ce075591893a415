"""The site builds without a warning, has no dead link, and fetches nothing."""
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs.code_blocks import PAGES

#: Attributes by which a page makes a browser fetch something.
FETCHES = {('link', 'href'), ('script', 'src'), ('img', 'src'), ('iframe', 'src'), ('source', 'src'), ('image', 'href')}


class Page(HTMLParser):
    """What a page fetches, where it links, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        for name, value in attributes:
            if (tag, name) in FETCHES and value:
                self.fetched.append(value)
            elif (tag, name) == ('a', 'href') and value:
                self.links.append(value)
            elif name == 'id' and value:
                self.anchors.add(value)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site):
    for page in PAGES:
        name = 'index' if page == 'README.md' else page.removeprefix('docs/').removesuffix('.md')
        assert (site / f'{name}.html').is_file(), page


def test_nothing_is_fetched_from_a_network(site):
    for path in site.rglob('*.html'):
        for place in Page(path.read_text(encoding='utf-8')).fetched:
            assert not re.match(r'(https?:)?//', place), f'{path.name} fetches {place}'
            if not place.startswith('data:') and path.name != '404.html':
                assert (path.parent / place.split('?')[0].split('#')[0]).exists(), f'{path.name}: no {place}'
    for path in site.rglob('*.css'):
        text = path.read_text(encoding='utf-8')
        assert not re.findall(r'(?:url\(|@import\s*)["\']?((?:https?:)?//[^)"\']+)', text), path.name


def test_no_link_is_dead(site):
    pages = {path.resolve(): Page(path.read_text(encoding='utf-8')) for path in site.rglob('*.html')}
    for path, page in pages.items():
        if path.name == '404.html':
            continue
        for link in page.links:
            if re.match(r'\w+:', link):
                continue
            name, _, anchor = link.partition('#')
            target = (path.parent / name).resolve() if name else path
            target = target / 'index.html' if target.is_dir() else target
            assert target.exists(), f'{path.name} links to {link}'
            assert not anchor or target not in pages or anchor in pages[target].anchors, f'{path.name} links to {link}'


def test_formulas_are_formulas(site):
    """None is left as text, and nothing in one was not understood."""
    text = (site / 'methods.html').read_text(encoding='utf-8')
    assert text.count('<math') > 40
    for path in site.rglob('*.html'):
        body = re.sub(r'<(code|pre|script)\b.*?</\1>', '', path.read_text(encoding='utf-8'), flags=re.DOTALL)
        assert '$$' not in body, path.name
        for formula in re.findall(r'<math.*?</math>', body, re.DOTALL):
            assert '\\' not in formula, f'{path.name}: {formula}'


@pytest.mark.parametrize('page', PAGES)
def test_links_between_the_sources(page):
    """As GitHub shows them: files and headings that a page links to are there."""
    text = (ROOT / page).read_text(encoding='utf-8')
    for link in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r'\w+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f'{page} links to {link}'
        if anchor:
            headings = re.findall(r'^#+ (.+)$', target.read_text(encoding='utf-8'), re.MULTILINE)
            assert anchor in {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}, \
                f'{page} links to {link}'
