"""When a pull towards the global model pushes away from it."""
import torch


def too_strong(key: str, strength: float, optimizer: torch.optim.Optimizer) -> list[str]:
    r"""A warning where gradient descent on a proximal term diverges by itself.

    With rate :math:`\eta` and momentum :math:`\beta`, descent on
    :math:`\frac{\mu}{2} \lVert w - w^t \rVert^2` converges to :math:`w^t` where
    :math:`\eta \mu < 2 (1 + \beta)`, and diverges above.

    Args:
        key (str): The config's key of :math:`\mu`.
        strength (float): :math:`\mu`.
        optimizer (torch.optim.Optimizer): The clients'. Adaptive ones take
            steps whose size does not grow with :math:`\mu`.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return []
    for group in optimizer.param_groups:
        rate, momentum = group.get('initial_lr', group['lr']), group['momentum']
        if rate * strength > 2 * (1 + momentum):
            return [f'{key}={strength:g} is too strong for a learning rate of {rate:g} with momentum {momentum:g}: '
                    f'their product {rate * strength:g} is above {2 * (1 + momentum):g}, beyond which the pull '
                    f'towards the global model drives weights away from it; use at most '
                    f'{2 * (1 + momentum) / rate:.3g}, or a lower learning rate.']
    return []
