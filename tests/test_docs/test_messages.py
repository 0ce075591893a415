"""The page on messages quotes what the code says."""
import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / 'docs' / 'messages.md').read_text()


def texts_of(path) -> list[str]:
    """Every text in a source file that is no docstring, with … for what is filled in."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            texts.append(''.join(part.value if isinstance(part, ast.Constant) else '…' for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


def test_every_message_of_the_page_is_one_of_the_code():
    texts = '\n'.join(text for path in sorted((ROOT / 'fedseg_mm').rglob('*.py')) for text in texts_of(path))
    messages = re.findall(r'^> (.+)$', PAGE, re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        # each … of the page may stand for several things that are filled in, within one text
        pattern = '.*?'.join(map(re.escape, re.split('…+', message)))
        assert re.search(pattern, texts), message


def test_the_page_points_at_its_sections():
    headings = re.findall(r'^## (.+)$', PAGE, re.MULTILINE)
    for heading in headings:
        anchor = re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
        assert f'- [{heading}](#{anchor})' in PAGE
