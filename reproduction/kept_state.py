"""What a later machine needs to go on with a run, in pieces."""
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedseg_mm.checkpoints import load_weights_only
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write, write_json
from fedseg_mm.resume import CLIENTS_FOLDER, clients_folder
from fedseg_mm.run_logs import checkpoint_round, last_checkpoint
from reproduction.run import Run

#: Bytes that a piece has at most.
PIECE = 15_000_000


class KeptState:
    """A run's last checkpoint, the states of its clients and its logs, as pieces of an archive.

    ``index.json`` names the pieces with their SHA-256. It is replaced after
    new pieces are written and before old ones are removed, so that the folder
    is usable whenever the writer is killed.

    Args:
        run (Run): The run.
        folder (str or Path): The folder of all runs' states.
    """

    def __init__(self, run: Run, folder: str | Path) -> None:
        self.run = run
        self.folder = Path(folder) / run.folder.name
        self.index_file = self.folder / 'index.json'

    def index(self) -> dict:
        """The pieces, and the round that they are of.

        Raises:
            FedSegError: The file cannot be read.
        """
        if not self.index_file.is_file():
            return dict(round=0, pieces=[])
        try:
            index = json.loads(self.index_file.read_text(encoding='utf-8'))
            return dict(round=int(index['round']), pieces=[
                dict(file=str(one['file']), sha256=str(one['sha256']), bytes=int(one['bytes']))
                for one in index['pieces']])
        except (ValueError, KeyError, TypeError) as error:
            raise FedSegError(f'the state {self.index_file} cannot be read: bring back the file as it was written, or '
                              f'remove {self.folder} to train {self.run.name} anew') from error

    # --- keeping ------------------------------------------------------------
    def keep(self) -> bool:
        """Write the state of the work dir's last checkpoint.

        Returns:
            bool: Whether there was anything new to write.
        """
        rounds = checkpoint_round(self.run.folder)
        if rounds == 0 or self.index()['round'] >= rounds:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        pieces: list[dict] = []
        with tempfile.TemporaryFile(dir=self.folder) as archive:
            # weights hardly shrink, logs do
            with gzip.open(archive, 'wb', compresslevel=1) as packed, tarfile.open(fileobj=packed, mode='w') as tar:
                for path in self._needed():
                    tar.add(path, path.relative_to(self.run.folder).as_posix())
            archive.seek(0)
            while content := archive.read(PIECE):
                digest = hashlib.sha256(content).hexdigest()
                piece = self.folder / f'{len(pieces):03d}_{digest[:16]}.piece'
                with atomic_write(piece) as file:
                    file.write_bytes(content)
                pieces.append(dict(file=piece.name, sha256=digest, bytes=len(content)))
        write_json(self.index_file, dict(run=self.run.name, config_hash=self.run.config_hash, round=rounds,
                                         pieces=pieces))
        for path in self.folder.iterdir():
            if path.suffix in ('.piece', '.tmp') and path.name not in {piece['file'] for piece in pieces}:
                path.unlink()
        return True

    def _needed(self) -> Iterator[Path]:
        """The files that --resume reads, and the logs that the result is made of."""
        folder, checkpoint = self.run.folder, last_checkpoint(self.run.folder)
        if checkpoint is not None:
            yield checkpoint
        yield from folder.glob('parts.json')
        for name in ('rounds', 'scalars', 'clients'):
            yield from sorted(folder.glob(f'*/vis_data/{name}.json'))
        if checkpoint_round(folder) < self.run.rounds:  # who goes on needs what the clients had at the checkpoint
            federated = load_weights_only(str(checkpoint), 'cpu')['federated']
            states = folder / clients_folder(federated)
            yield from (states / str(client) / f'round_{rounds}.pth'
                        for client, rounds in federated['clients'].items())

    # --- bringing back ------------------------------------------------------
    def bring_back(self) -> bool:
        """Make the work dir that of the kept state, if it is not as far.

        Returns:
            bool: Whether it was behind.

        Raises:
            FedSegError: A piece is missing or damaged; names it.
        """
        index, folder = self.index(), self.run.folder
        if index['round'] <= checkpoint_round(folder):
            return False
        archive = io.BytesIO()
        for piece in index['pieces']:
            path = self.folder / piece['file']
            content = path.read_bytes() if path.is_file() else b''
            if hashlib.sha256(content).hexdigest() != piece['sha256']:
                raise FedSegError(
                    f'the piece {path} of the state of {self.run.name} is {"damaged" if content else "missing"}: bring '
                    f'it back from where it was copied, or remove {self.folder} to train the run anew')
            archive.write(content)
        archive.seek(0)
        (folder / 'last_checkpoint').unlink(missing_ok=True)  # from here to the end, the work dir counts as empty
        for states in folder.glob('clients*/'):
            if CLIENTS_FOLDER.fullmatch(states.name):
                shutil.rmtree(states, ignore_errors=True)
        checkpoint = ''
        with tarfile.open(fileobj=archive, mode='r:gz') as tar:
            for member in tar:
                path = folder / member.name
                if not member.isfile() or folder.resolve() not in path.resolve().parents:
                    raise FedSegError(f'the state in {self.folder} holds {member.name!r}, which no run has: remove it')
                path.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                with path.open('wb') as file:
                    shutil.copyfileobj(content, file)
                checkpoint = checkpoint or member.name
        (folder / 'last_checkpoint').write_text(str(folder / checkpoint))
        return True
