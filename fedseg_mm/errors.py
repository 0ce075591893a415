"""Errors that a user can fix."""
import reprlib
import traceback

#: Letters of what a file or another machine says, in a sentence of ours.
MOST_LETTERS = 200


class FedSegError(ValueError):
    """A mistake in a config, a data set or a file, reported in one sentence.

    The message names the file, key or client at fault and says what to do.
    The command line tools print it without a traceback and exit with 1.
    """


class DownloadError(FedSegError):
    """Weights that a config names are on the internet, which this machine does not reach."""


class Faults:
    """Collects sentences, so that all that is wrong is reported at once.

    ::

        faults = Faults()
        for section in sections:
            with faults:
                check(section)
        faults.report()
    """

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note what is wrong, once."""
        for line in sentence.splitlines():
            if line not in self.sentences:
                self.sentences.append(line)

    def __enter__(self) -> 'Faults':
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if isinstance(error, FedSegError):
            self.add(str(error))
            return True
        return False

    def report(self) -> None:
        """Raise what was found.

        Raises:
            FedSegError: Something was; a line for each sentence.
        """
        if self.sentences:
            raise FedSegError('\n'.join(self.sentences))


def shown(value, most: int = MOST_LETTERS) -> str:
    """What a file or another machine says, for a sentence: one line that a terminal obeys in nothing, and not too long.

    Args:
        value: Text is shown as it is, anything else as Python writes it.
        most (int): Letters at most.
    """
    try:
        text = value if isinstance(value, str) else _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f'{type(value).__name__} without end'
    words = ' '.join(''.join(letter if letter.isprintable() else ' ' for letter in text[:4 * most]).split())
    return words if len(words) <= most else f'{words[:most - 1]}…'


def _short_repr() -> reprlib.Repr:
    """Of a file of a few lines, YAML's references can make a structure that takes gigabytes to write out."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 1, MOST_LETTERS, MOST_LETTERS
    return short


_SHORT = _short_repr()


def reason(error: BaseException, typed: bool = False) -> str:
    """What an error of another package says, perhaps after its type; of an assertion without words, what it asserts."""
    words = ' '.join(str(error).split())
    if words:
        return f'{type(error).__name__}: {words}' if typed else words
    places = traceback.extract_tb(error.__traceback__)
    line = places[-1].line if places else ''
    return f'{type(error).__name__}{f", in `{line}`" if line else ""}'
