"""All code of README.md and docs/ runs; what would take too long is checked for commands, flags and files."""
import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from mmengine.config import Config

from fedseg_mm.federation import Federation
from fedseg_mm.silos.site_config import KEYS
from tests.conftest import ROOT, run_tool
from tests.test_docs import code_blocks
from tests.test_docs.code_blocks import PAGES, blocks, check_command

#: What begins a command within a sentence.
COMMANDS = ('python tools/', 'python docs/', 'python -m ', 'bash ', 'torchrun ', 'make ')
LANGUAGES = {'bash', 'python', 'yaml', 'text'}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    code_blocks.make_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(block, folder, in_full: bool = False) -> None:
    output = ''
    for command in block.commands():
        environment, words = code_blocks.environment(shlex.split(command))
        assert words[0] == 'python', command
        words = words[1:] if in_full else code_blocks.with_options(words[1:], block.mark)
        if words[0].startswith('tools/'):
            name = words[0].removeprefix('tools/').removesuffix('.py')
            done = run_tool(name, *words[1:], cwd=folder, **environment)
        else:
            done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}'
        output += done.stdout
    if block.mark['prints']:
        assert block.mark['prints'] in output, output[-3000:]


def use_python(block, page_text, ran) -> None:
    """A file's text, or a piece of a config."""
    if block.file_name is None:
        names: dict = {}
        exec(block.text, names)
        assert 'federated' in names, 'a piece of a config says which'
        Federation(**{**dict(partitioner=dict(type='IIDPartitioner', num_clients=4), clients_per_round=2),
                      **names['federated']})
    elif '_base_' in block.text:
        config = Config.fromfile(block.file_name)
        assert config.federated and config.train_cfg.max_rounds
    else:
        compile(block.text, block.file_name, 'exec')
        stem = block.file_name.removesuffix('.py')
        assert any(f'{stem}.py' in text for text in ran) or re.search(rf"imports=\[[^]]*'{stem}'", page_text), \
            f'no command of the page uses {block.file_name}'


@pytest.mark.parametrize('page', PAGES)
def test_the_code_of_the_page(page, workspace):
    found = blocks(page)
    ran = [block.text for block in found if block.language == 'bash' and block.mark and block.mark['kind'] == 'run']
    variables: dict[str, str] = {}
    for block in found:
        where = f'{page}:{block.line}'
        assert block.language in LANGUAGES, f'{where}: name the language of the block'
        if block.file_name and block.language in ('python', 'yaml'):
            (workspace / block.file_name).write_text(block.text, encoding='utf-8')
    for block in found:
        where = f'{page}:{block.line}'
        try:
            if block.language == 'python':
                if block.file_name is None or '_base_' not in block.text or not ran:
                    use_python(block, (ROOT / page).read_text(), ran)
            elif block.language == 'yaml':
                content = yaml.safe_load(block.text)  # a manifest, or a site's
                assert content.get('clients') or ('train' in content and set(content) <= set(KEYS))
            elif block.language == 'bash':
                assert block.mark, f'{where}: say above the block whether it is run, see tests/test_docs/code_blocks.py'
                if block.mark['kind'] == 'run':
                    run(block, workspace)
                else:
                    assert block.mark['reason'], f'{where}: say why it is not run'
                    for command in block.commands():
                        check_command(command, variables)
        except (AssertionError, Exception, SystemExit) as error:
            raise AssertionError(f'{where}: {error}') from error


@pytest.mark.slow
def test_the_tutorial_in_full(workspace):
    """Minutes; the figures of the page are of one machine, but the model must have learned all classes anywhere."""
    found = blocks('docs/tutorial.md')
    for block in found:
        if block.language in ('python', 'yaml'):
            (workspace / block.file_name).write_text(block.text, encoding='utf-8')
    for block in found:
        if block.language == 'bash':
            run(block, workspace, in_full=True)
    lines = next((workspace / 'work_dirs' / 'hospitals').glob('*/vis_data/scalars.json')).read_text().splitlines()
    figures: dict[str, float] = {}
    for line in lines:
        figures.update(json.loads(line))  # the last of each
    assert figures['mIoU'] > 70 and all(figures[f'IoU/{name}'] > 50 for name in ('tissue', 'nucleus', 'gland'))


@pytest.mark.parametrize('page', PAGES)
def test_all_code_is_fenced(page):
    assert not list(code_blocks.indented_code(page)), f'{page}: code without a fence is not checked'


def test_most_kinds_of_blocks_are_there():
    """The pages are found, and blocks are run."""
    kinds = [block.mark['kind'] for page in PAGES for block in blocks(page) if block.mark]
    assert kinds.count('run') > 12 and len(PAGES) > 15


@pytest.mark.parametrize('page', PAGES)
def test_commands_and_files_that_the_text_names(page, workspace):
    """Flags, commands and files in `code` within sentences and tables."""
    text = re.sub(r'^```.*?^```', '', (ROOT / page).read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r'`([^`\n]+)`', text):
        if code.startswith(COMMANDS) and '…' not in code:
            check_command(code.split(' > ')[0], {})
        elif re.fullmatch(r'(tools|configs|docs|benchmarks|fedseg_mm|tests|reproduction)/[\w/.-]+\.\w+', code):
            assert (ROOT / code).exists(), f'{page}: there is no {code}'
        elif re.match(r'--[a-z]', code) and not code.startswith('--nproc'):
            flags = (ROOT / 'fedseg_mm' / 'cli' / 'arguments.py').read_text() + ''.join(
                path.read_text() for path in [ROOT / 'reproduction' / 'cli.py', *(ROOT / 'benchmarks').glob('*.py')])
            for flag in set(re.findall(r'(?<!\S)--[a-z][\w-]*', code)) - {'--help'}:
                assert f"'{flag}'" in flags, f'{page}: no command has {flag}'


@pytest.mark.parametrize('command', [
    'python tools/fed_train.py configs/fedavg/upernet_streetscenes_noniid1_ce.py --rounds 3', 'make something',
    'python tools/nothing.py', 'python tools/fed_train.py configs/nothing.py', "pip install '.[nothing]'",
    'python tools/reproduce.py --protocol nothing', 'python tools/reproduce.py --rows Nothing',
    'python tools/fed_train.py configs/fedavg/upernet_streetscenes_noniid1_ce.py --cfg-options federatd.seed=1',
    'python benchmarks/run.py --fast', 'bash benchmarks/nothing.sh',
    'python -m pytest tests/nothing.py', 'curl example.org'])
def test_a_wrong_command_is_noticed(command, workspace):
    with pytest.raises((AssertionError, Exception, SystemExit)):
        check_command(command, {})
