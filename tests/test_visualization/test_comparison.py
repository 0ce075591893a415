import cv2
import numpy as np

from fedseg_mm.visualization import draw_comparison


def test_predictions_have_their_classes_colours(tmp_path):
    """Each class's colour covers as many pixels, relative to the others, as the class does."""
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 45:] = 1
    image = np.full((40, 60, 3), 200, np.uint8)
    palette = [[250, 10, 10], [10, 10, 250]]
    for rows, curves in ((1, {'a': [(1, 10.)]}), (3, {'a': [(1, 10.), (2, 20.)], 'b': [(1, 5.), (2, 0.)]})):
        draw_comparison(curves, [(image, truth, 1 - truth, truth)] * rows, ('image', 'truth', 'with a', 'with b'),
                        ('sky', 'road'), palette, tmp_path / 'picture.png')
        picture = cv2.imread(str(tmp_path / 'picture.png'))[..., ::-1].astype(int)
        red, blue = ((np.abs(picture - colour).sum(-1) < 6).sum() for colour in palette)
        assert abs(red / blue - (45 + 15 + 45) / (15 + 45 + 15)) < 0.05
        assert picture.shape[1] == 1200
