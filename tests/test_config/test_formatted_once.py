"""The config's text is made anew when, and only when, its content has changed."""
import copy

from mmengine.config import Config

from fedseg_mm.config import load_config
from tests.conftest import write_config


def test_text_is_that_of_mmengine_and_made_once(tiny_data, tmp_path, monkeypatch):
    path = write_config(tiny_data, tmp_path)
    cfg, plain = load_config(path), Config.fromfile(path)
    assert cfg.pretty_text == plain.pretty_text
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda *args, **kwargs: 1 / 0)
    assert copy.deepcopy(cfg).pretty_text == cfg.pretty_text == cfg.dump()
    monkeypatch.undo()
    cfg.optim_wrapper.optimizer.lr = 0.25
    assert 'lr=0.25' in cfg.pretty_text and 'lr=0.25' not in plain.pretty_text
