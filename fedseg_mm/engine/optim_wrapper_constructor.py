"""FedSeg's parameter groups: no weight decay on one-dimensional parameters."""
import difflib

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS

from fedseg_mm.errors import FedSegError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FlatNoDecayConstructor(DefaultOptimWrapperConstructor):
    """No weight decay on one-dimensional parameters, those of ``custom_keys`` included.

    MMEngine's constructor drops ``norm_decay_mult`` and ``bias_decay_mult``
    for parameters that a custom key matches, such as the heads with their
    ten times higher rate. Parameters with equal settings share a group, so
    that the optimizer steps a few times instead of once per parameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        name = optim_wrapper_cfg.get('optimizer', {}).get('type')
        if isinstance(name, str) and OPTIMIZERS.get(name) is None:
            near = difflib.get_close_matches(name, OPTIMIZERS.module_dict, n=1, cutoff=0.0)
            raise FedSegError(f'unknown type `{name}` in optim_wrapper.optimizer: did you mean `{near[0]}`?')
        # MMEngine leaves everything in one group where paramwise_cfg is empty
        super().__init__(optim_wrapper_cfg, paramwise_cfg or dict(flat_decay_mult=0.))

    def add_params(self, params: list[dict], module, prefix: str = '', is_dcn_module=None) -> None:
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        groups: dict[tuple, dict] = {}
        for group in params:
            parameter, = group.pop('params')
            if parameter.ndim == 1:
                group['weight_decay'] = 0.0
            groups.setdefault(tuple(sorted(group.items())), {**group, 'params': []})['params'].append(parameter)
        params[:] = groups.values()
