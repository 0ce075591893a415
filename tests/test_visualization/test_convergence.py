import cv2
import numpy as np
from matplotlib.figure import Figure

from fedseg_mm.visualization import convergence, draw_convergence


def test_lines_are_means_and_bands_the_range_of_seeds(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(convergence, 'Figure', lambda **kwargs: figures.append(Figure(**kwargs)) or figures[-1])
    seeds = [np.array([[10, 2e6, 10.], [20, 4e6, 20.]]), np.array([[10, 2e6, 14.], [15, 3e6, 0.], [20, 4e6, 30.]])]
    draw_convergence({'FedSeg': seeds, 'CE': seeds[:1]}, {'centralised': 36.}, 'CamVid', tmp_path / 'picture.png')
    by_round, by_bytes = figures[0].axes
    mean, single, bound = by_round.lines
    assert mean.get_xydata().tolist() == [[10, 12], [20, 25]]  # round 15 is not one of both seeds
    assert single.get_xydata().tolist() == [[10, 10], [20, 20]] and set(bound.get_ydata()) == {36}
    (band, ) = by_round.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} >= {(10, 10), (10, 14), (20, 20), (20, 30)}
    assert by_bytes.lines[0].get_xdata().tolist() == [2, 4]  # MB
    assert [text.get_text() for text in figures[0].legends[0].texts] == ['FedSeg (2 seeds)', 'CE', 'centralised']
    assert cv2.imread(str(tmp_path / 'picture.png')).shape[1] > 1000
