"""Checks of a config's values, in one sentence each."""
import difflib
import math
import operator
import re
from collections.abc import Iterable

from fedseg_mm.errors import Faults, FedSegError, shown

#: Letters that break or turn around a line, or that no file of UTF-8 holds.
_NO_NAME = re.compile('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def is_name(text: str) -> bool:
    """Whether a text can be written into a line and a file."""
    return _NO_NAME.search(text) is None


def fits(value, shape) -> bool:
    """Whether what a file says is shaped as it must be.

    Args:
        value: Of JSON.
        shape: A function that looks at a value; a list of one shape, that of
            all items; or a dict of shapes by key, of which those that end in
            ? need not be there.
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            fits(value[name], inner) if (name := key.removesuffix('?')) in value else key.endswith('?')
            for key, inner in shape.items())
    return bool(shape(value))


def is_text(value) -> bool:
    return isinstance(value, str)


def is_count(value) -> bool:
    """Whether a value is an integer from 0 that is exact in all languages."""
    return type(value) is int and 0 <= value < 1 << 53


def is_figure(value) -> bool:
    """Whether a value is a number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse unknown keys and name the nearest known ones.

    Raises:
        FedSegError: A key of ``given`` is not in ``known``.
    """
    known = sorted(known)
    faults = Faults()
    for key in given:
        if key not in known:
            key = shown(key)
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f'did you mean `{near[0]}`?' if near else f'known keys are {", ".join(known) or "none"}'
            faults.add(f'unknown key `{key}` in {where}: {hint}')
    faults.report()


def check_positive(name: str, value) -> None:
    """Refuse what is not an integer of at least 1.

    Raises:
        FedSegError: Names the config's key and its value.
    """
    check_integer(name, value, 1)


def check_integer(name: str, value, least: int) -> int:
    """Refuse what is not an integer of at least ``least``.

    Returns:
        int: The integer.

    Raises:
        FedSegError: Names the config's key and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FedSegError(f'{name} must be an integer of at least {least}, but is {value!r}')
    return value


def check_number(name: str, value, least: float | None = None, above: float | None = None, most: float | None = None,
                 below: float | None = None) -> float:
    """Refuse what is not a finite number within the bounds.

    Returns:
        float: The number.

    Raises:
        FedSegError: Names the config's key and its value.
    """
    bounds = [('at least', least, operator.ge), ('above', above, operator.gt), ('at most', most, operator.le),
              ('below', below, operator.lt)]
    given = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite(value) or not all(
            holds(value, bound) for _, bound, holds in given):
        which = ' and '.join(f'{word} {bound}' for word, bound, _ in given)
        raise FedSegError(f'{name} must be a number {which}, but is {shown(repr(value))}')
    return value


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False
