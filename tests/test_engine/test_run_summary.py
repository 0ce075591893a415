"""What the console says of a run, and what only the log file has."""
import logging
import re

from fedseg_mm.cli.test import main as evaluate
from fedseg_mm.cli.train import main
from fedseg_mm.engine.tool_runner import ConsoleFilter
from tests.conftest import write_config


def test_the_console_is_short_and_the_file_whole(tiny_data, tmp_path, capsys, monkeypatch):
    config = write_config(tiny_data, tmp_path / 'config', **{'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 1})
    monkeypatch.setattr('sys.argv', ['tools/fed_train.py'])
    main([config, '--work-dir', str(tmp_path / 'run')])
    console = capsys.readouterr().out
    file = next((tmp_path / 'run').glob('*/*.log')).read_text()
    for words in ('System environment:', 'Config:\n', 'Hooks will be executed', 'Saving checkpoint at'):
        assert words in file and words not in console
    start = console[:console.index('Round 1:')]
    assert len(start.splitlines()) <= 10
    assert 'Clients      8 (0, 1, 2, 3, 4, 5, 6, 7): 24 images, 3 each; of the 4 classes, each annotates 1' in start
    assert 'Method       FedAvg, WeightedMean; 2 rounds of 3 clients, 2 local epochs of batches of 2' in start
    assert re.search(r'Model        FastSCNN \+ \w+FCNHead, [\d,]+ trainable parameters, \d\.\d MB', start)
    best, evaluate_with = console.splitlines()[-2:]
    assert re.search(r'Best         \S+best_mIoU_round_\d.pth, mIoU \d+\.\d\d$', best)
    command, config, checkpoint = evaluate_with.split('Evaluate     ')[1].rsplit(' ', 2)
    assert command == 'python tools/test.py'
    evaluate([config, checkpoint, '--work-dir', str(tmp_path / 'test')])
    assert f'mIoU: {best.split()[-1]}' in capsys.readouterr().out


def test_quiet_shows_warnings_and_the_end(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1, 'default_hooks.checkpoint.interval': 7})
    main([config, '--quiet'])
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r'INFO - (\w+)', line)[1] for line in lines if 'INFO' in line] == [
        'Checkpoint', 'Best', 'Evaluate']
    assert 'Round 1:' in next(tmp_path.glob('*/*.log')).read_text()


def test_warnings_are_always_shown():
    shown = ConsoleFilter(quiet=True).filter
    assert shown(logging.LogRecord('', logging.WARNING, '', 0, 'The update of client 3 holds NaN', (), None))
    assert not shown(logging.LogRecord('', logging.INFO, '', 0, 'Round 1: clients', (), None))
