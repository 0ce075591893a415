"""What today's stack needs before MMSegmentation can be imported and used.

Importing this module applies every fix that the installed stack needs; each
one changes nothing where it is not needed, and nothing in site-packages.
"""
import importlib.metadata
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from fedseg_mm.checkpoints import handle_checkpoints_safely
from fedseg_mm.errors import FedSegError

INSTALL_MMCV = ("install one of them: `pip install mmcv-lite==2.1.0` (no compiled ops, enough for nearly every "
                'model) or `pip install mmcv==2.1.0` (with compiled ops)')


# --- mmcv-lite has no compiled ops, but mmseg imports them ------------------
class _MissingOps(ModuleType):
    """Stands in for ``mmcv._ext``: every op exists and raises when called."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing_op(*args, **kwargs):
            raise FedSegError(f'the compiled op `{name}` is not part of mmcv-lite: use a model without it, or replace '
                              'mmcv-lite with the full mmcv (`pip uninstall mmcv-lite`, `pip install mmcv==2.1.0`)')

        return missing_op


def _provide_mmcv_ops() -> None:
    """mmseg imports ``mmcv.ops``; mmcv-lite has the Python half of it only."""
    if importlib.util.find_spec('mmcv') is None:
        raise ModuleNotFoundError(f'fedseg_mm needs mmcv-lite or mmcv, and neither is installed; {INSTALL_MMCV}')
    if 'mmcv._ext' in sys.modules or importlib.util.find_spec('mmcv._ext') is not None:
        return
    ops = _MissingOps('mmcv._ext')
    # Runner.wrap_model looks modules up with find_spec, which needs a spec
    ops.__spec__ = ModuleSpec('mmcv._ext', None)
    sys.modules['mmcv._ext'] = ops


# --- `mmseg::` base configs need pkg_resources, gone from setuptools >= 82 ---
def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
        return True
    except importlib.metadata.PackageNotFoundError:
        return importlib.util.find_spec(package) is not None


def _get_installed_path(package: str) -> str:
    # OpenMMLab's distributions and modules differ in name (mmsegmentation, mmseg): the module is what holds .mim
    modules = [package]
    try:
        top_level = importlib.metadata.distribution(package).read_text('top_level.txt') or ''
        modules = top_level.split() or modules
    except importlib.metadata.PackageNotFoundError:
        pass
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent)
    raise ModuleNotFoundError(f'the package {package} is not installed')


def _name_this_package() -> None:
    """MMEngine resolves ``_base_ = 'package::…'`` for the packages that it knows."""
    from mmengine.config.utils import MODULE2PACKAGE
    MODULE2PACKAGE.setdefault('fedseg_mm', 'fedseg_mm')


def _replace_pkg_resources() -> None:
    """MMEngine resolves ``_base_ = 'mmseg::…'`` through it; where it is there, it does not find editable installs."""
    import mmengine.config.config
    import mmengine.hub.hub
    import mmengine.utils.package_utils
    for module in (mmengine.utils, mmengine.utils.package_utils, mmengine.config.config, mmengine.hub.hub):
        for name, function in (('is_installed', _is_installed), ('get_installed_path', _get_installed_path)):
            if hasattr(module, name):
                setattr(module, name, function)


_provide_mmcv_ops()
_replace_pkg_resources()
_name_this_package()
handle_checkpoints_safely()
