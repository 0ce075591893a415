"""What people need to know of the logs of NVFLARE and of the trainer, a sentence each."""
import re
from collections.abc import Sequence
from pathlib import Path

#: Bytes that are looked at at once.
MOST = 1 << 20
#: What the trainer itself says.
TRAINER = ((re.compile(r'^\d{4}-\d\d-\d\d [\d:,]+ (.+)$'), r'\1'), )


def nvflare_sentences(kit: Path, name: str, server: str) -> Sequence[tuple[re.Pattern, str]]:
    """Lines of NVFLARE's log at a site, and what they mean.

    Args:
        kit (Path): The site's startup kit.
        name (str): The site's name.
        server (str): Where its server is.
    """
    return tuple((re.compile(pattern), sentence) for pattern, sentence in (
        ('Successfully registered client', f'{name} is connected to the server {server}.'),
        ('CERTIFICATE_VERIFY_FAILED', f'The server {server} has a certificate that {kit} does not trust: the kit is of '
                                      "another federation, or this machine's clock is wrong. It is tried again."),
        (r'Retrying \[CH.* in (?:8|1\d|[2-9]\d) seconds', f'The server {server} is not to be reached: it is tried '
                                                          'again until it is.'),
        ('ComponentNotAuthorized', 'A job was refused: it names a class that this site '
                                                                'does not run.'),
        ('BYOC not permitted', 'A job was refused: it brings code of its own.')))


class LogWatch:
    """Reads on in a log as it grows.

    Args:
        log (Path): The file, which need not be there yet.
        sentences (Sequence): Patterns of lines, and what is said of them.
    """

    def __init__(self, log: Path, sentences: Sequence[tuple[re.Pattern, str]]) -> None:
        self.log, self.sentences = log, sentences
        self._place = log.stat().st_size if log.is_file() else 0
        self._last = ''

    def news(self) -> list[str]:
        """What is new; the same is not said twice in a row."""
        try:
            with self.log.open('rb') as file:
                if file.seek(0, 2) < self._place:  # somebody has emptied it
                    self._place = 0
                file.seek(self._place)
                new = file.read(MOST)
        except OSError:
            return []
        whole = new if len(new) == MOST and b'\n' not in new else new.rpartition(b'\n')[0]
        self._place += len(whole) + (whole is not new and bool(whole))
        found = []
        for line in whole.decode(errors='replace').splitlines():
            for pattern, sentence in self.sentences:
                if (match := pattern.search(line)) and (said := match.expand(sentence)) != self._last:
                    self._last = said
                    found.append(said)
        return found
