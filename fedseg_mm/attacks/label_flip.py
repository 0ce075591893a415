"""Clients whose labels are wrong."""
from fedseg_mm.attacks.attack import Attack
from fedseg_mm.registry import ATTACKS


@ATTACKS.register_module()
class LabelFlip(Attack):
    r"""Label flipping (data poisoning; Karimireddy et al., ICML 2021, section 7).

    .. math::
        y \leftarrow C - 1 - y

    for all C classes, before labels are masked to what the client annotates:
    one that annotates cars alone marks as cars what is the class C - 1 - car,
    and leaves cars unannotated. Void stays void. The client then trains and
    sends as it should.

    Args:
        kwargs: Who is hostile, see :class:`Attack`.
    """

    def relabel(self, num_classes: int) -> tuple[int, ...]:
        return tuple(reversed(range(num_classes)))
