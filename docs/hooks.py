"""What MkDocs does beside its own: the home page is README.md, formulas become MathML, and nothing is fetched."""
import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """README.md is the home page; GitHub shows the same text."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = re.sub(r'\]\((?!https?:|#)([^)]+)\)', lambda link: f']({posixpath.relpath(link[1], "docs")})', text)
    files.append(File.generated(config, 'index.md', content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links that leave the documentation are names of files; formulas are set aside from Markdown."""
    markdown = re.sub(r'\[([^\]]+)\]\(\.\./[^)]*\)', r'\1', markdown)
    parts = re.split(r'(^```.*?^```|`[^`\n]*`)', markdown, flags=re.MULTILINE | re.DOTALL)
    return ''.join(part if place % 2 else _formulas(part) for place, part in enumerate(parts))


def _formulas(text: str) -> str:
    text = re.sub(r'\$\$(.+?)\$\$', lambda found: f'\n\n<div class="formula">{_lines(found[1])}</div>\n\n', text,
                  flags=re.DOTALL)
    return re.sub(r'(?<![\\$\w])\$([^$\n]+(?:\n[^$\n]+)?)\$(?![\w$])', lambda found: _mathml(found[1], 'inline'), text)


def _lines(formula: str) -> str:
    """One formula per line of an aligned one."""
    if r'\begin{cases}' in formula:
        return _mathml(formula, 'block')
    formula = re.sub(r'\\(?:begin|end)\{aligned\}', '', formula)
    return ''.join(_mathml(line.replace('&', ''), 'block') for line in re.split(r'\\\\(?![a-z])', formula))


def _mathml(formula: str, display: str) -> str:
    formula = re.sub(r'\\[lr]Vert\b', r'\\|', re.sub(r'\\[Bb]igg?[lr]?(?=\W|\\)', '', html.unescape(formula)))
    return convert(' '.join(formula.split()), display=display)
