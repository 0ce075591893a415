"""Images that are decoded once, for all epochs, workers and runs."""
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from mmcv.transforms import LoadImageFromFile
from mmseg.registry import TRANSFORMS

from fedseg_mm.datasets.array_cache import cache_folder, file_state, read_array, write_array


@TRANSFORMS.register_module()
class LoadCachedImage(LoadImageFromFile):
    """``LoadImageFromFile`` with a cache of decoded images on disk.

    Use it in place of ``LoadImageFromFile`` where decoding slows training
    down. Pixels are read from ``$FEDSEG_CACHE/images`` (default
    ``~/.cache/fedseg_mm/images``) as long as the image's file is the same; no
    memory is held, as the operating system keeps what is read often. The
    folder takes height x width x 3 bytes per image, and may be deleted.

    Args:
        kwargs: Arguments of ``LoadImageFromFile``.
    """

    def transform(self, results: dict) -> dict | None:
        """Load an image; adds ``img``, ``img_shape`` and ``ori_shape``."""
        cached = self._cached_file(results['img_path'])
        image = None if cached is None else read_array(cached)
        if image is not None:
            results['img'] = image
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
            return results
        loaded = super().transform(results)
        if cached is not None and loaded is not None:
            with suppress(OSError):  # a full disk costs the cache, not the training
                write_array(cached, loaded['img'])
        return loaded

    def _cached_file(self, path: str) -> Path | None:
        """The cache's place; None for what is not a local file."""
        state = file_state(path)
        if state is None:
            return None
        what = (os.path.abspath(path), state, self.color_type, self.imdecode_backend, self.to_float32)
        name = hashlib.sha256(repr(what).encode()).hexdigest()
        return cache_folder() / 'images' / name[:2] / f'{name[2:34]}.npy'
