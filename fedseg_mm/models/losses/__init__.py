from .back_ce_loss import BackCELoss, back_ce

__all__ = ['BackCELoss', 'back_ce']
