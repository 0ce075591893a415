import cv2
import numpy as np
import pytest

from fedseg_mm.visualization import draw_panels


@pytest.mark.parametrize('columns', [3, 9])
def test_every_picture_is_as_wide_and_has_its_classes_colours(tmp_path, columns):
    truth = np.zeros((36, 48), np.uint8)
    truth[:, 36:] = 1
    image = np.full((36, 48, 3), 200, np.uint8)
    palette = [[250, 10, 10], [10, 10, 250], *[[0, 90 + i, 0] for i in range(9)]]
    draw_panels([(image, *[truth] * (columns - 1))] * 3, [f'column {i}' for i in range(columns)],
                [f'class {i}' for i in range(11)], palette, tmp_path / 'picture.png')
    picture = cv2.imread(str(tmp_path / 'picture.png'))[..., ::-1].astype(int)
    assert picture.shape[1] == pytest.approx(252 * columns, abs=2)
    red, blue = ((np.abs(picture - colour).sum(-1) < 6).sum() for colour in palette[:2])
    assert abs(red / blue - 3) < 0.2
    assert min(red, blue) > 500
