"""Curves and predictions of the table's rows."""
import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.registry import init_default_scope
from mmseg.apis import inference_model, init_model
from mmseg.registry import DATASETS

from fedseg_mm.run_logs import last_checkpoint
from fedseg_mm.visualization import draw_convergence, draw_local_epochs, draw_panels
from reproduction.protocol import BOUNDS, SPLITS, Protocol
from reproduction.run import Run

#: Test images that panels show.
SHOWN = 3


def plot(protocol: Protocol, results: Iterable[dict], folder: Path) -> list[Path]:
    """Draw the curves of complete runs, a picture per split.

    Args:
        protocol (Protocol): Gives the rows.
        results (Iterable[dict]): The complete runs.
        folder (Path): Where the pictures go.

    Returns:
        list[Path]: The pictures.
    """
    results, paths = list(results), []
    for split in SPLITS:
        curves: dict[str, list[np.ndarray]] = {}
        bounds: dict[str, list[float]] = {}
        for row in protocol.configs:
            for one in results:
                if one['row'] != row or one['split'] not in (split, None):
                    continue
                if row in BOUNDS:
                    bounds.setdefault(row, []).append(one['mean_of_last_five']['mIoU'])
                else:
                    curves.setdefault(row, []).append(_curve(one))
        if protocol.local_epochs:
            paths += _plot_local_epochs(protocol, [one for one in results if one['split'] == split], split, folder)
        elif curves:
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f'convergence_{split}.png')
            draw_convergence(curves, {row: float(np.mean(values)) for row, values in bounds.items()},
                             f'CamVid, {split.replace("noniid", "non-IID")}, protocol {protocol.name}', paths[-1])
    return paths


def _plot_local_epochs(protocol: Protocol, results: Iterable[dict], split: str, folder: Path) -> list[Path]:
    figures: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for one in results:
        method, epochs = protocol.local_epochs[one['row']]
        sent = one['rounds'][-1]
        figures.setdefault(method, {}).setdefault(epochs, []).append(
            (one['mean_of_last_five']['mIoU'], (sent['bytes_up'] + sent['bytes_down']) / 1e6))
    if not figures:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'local_epochs_{split}.png'
    draw_local_epochs(figures, f'CamVid, {split.replace("noniid", "non-IID")}, from ImageNet weights', path)
    return [path]


def _curve(result: dict) -> np.ndarray:
    """Round, bytes so far, mIoU of every evaluation."""
    return np.array([(evaluation['round'], sent['bytes_up'] + sent['bytes_down'], evaluation['mIoU'])
                     for evaluation, sent in zip(result['evaluations'], result['rounds'])])


def paint_panels(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw predictions of the runs' last checkpoints, a picture per split.

    The images are the middle ones of the first, second and last third of the
    test set, by name. LocalOnly has no model that all clients share.

    Args:
        runs (Sequence[Run]): The runs; those without a checkpoint are left
            out.
        folder (Path): Where the pictures go.

    Returns:
        list[Path]: The pictures.
    """
    trained = [run for run in runs if last_checkpoint(run.folder) and run.row != 'local-only']
    init_default_scope('mmseg')  # both mmcv and mmseg have a LoadAnnotations
    paths = []
    for split in SPLITS:
        shown = [run for run in trained if run.split in (split, None)]
        if not any(run.split == split for run in shown):
            continue
        dataset = DATASETS.build({**shown[0].cfg.test_dataloader.dataset, 'pipeline': [
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]})
        order = sorted(range(len(dataset)), key=lambda index: dataset.get_data_info(index)['img_path'])
        chosen = [order[(2 * third + 1) * len(order) // (2 * SHOWN)] for third in range(SHOWN)]
        samples = [dataset[index] for index in chosen]
        columns = [_predict(run, [sample['img'] for sample in samples]) for run in shown]
        rows = [(np.ascontiguousarray(sample['img'][..., ::-1]), sample['gt_seg_map'], *predictions)
                for sample, *predictions in zip(samples, *columns)]
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f'panels_{split}.png')
        draw_panels(rows, ['image', 'truth', *(run.row for run in shown)], dataset.metainfo['classes'],
                    dataset.metainfo['palette'], paths[-1])
    return paths


def _predict(run: Run, images: list[np.ndarray]) -> list[np.ndarray]:
    """Classes of every pixel, (H, W), of images in BGR."""
    cfg = copy.deepcopy(run.cfg)
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline  # where MMSegmentation looks for it
    model = init_model(cfg, str(last_checkpoint(run.folder)), device='cpu')
    return [inference_model(model, image).pred_sem_seg.data[0].numpy().astype(np.uint8) for image in images]
