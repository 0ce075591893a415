"""The process of a site's trainer, as `silo start` runs it.

::

    python -m fedseg_mm.silos.trainer_process KIT SITE_YAML
"""
import json
import logging
import os
import sys
import traceback
from pathlib import Path

from fedseg_mm.errors import FedSegError, reason
from fedseg_mm.silos import wire
from fedseg_mm.silos.desk import Desk, Task
from fedseg_mm.silos.kits import site_name
from fedseg_mm.silos.site_config import SiteConfig
from fedseg_mm.silos.site_trainer import SiteTrainer
from fedseg_mm.silos.spool import Spool

log = logging.getLogger('fedseg_mm.silo')


def do(trainer: SiteTrainer, task: Task, spool: Spool) -> tuple[bytes, dict]:
    """Do one task; its output, and what is told beside it.

    Raises:
        FedSegError: It cannot be done; says why.
    """
    inputs = {name: spool.read(digest) for name, digest in task.inputs.items()}
    if task.kind == 'setup':
        return json.dumps(trainer.setup(json.loads(inputs['run']))).encode(), {}
    if task.kind == 'train':
        update, kept = trainer.train(inputs['weights'], inputs['rest'], inputs.get('unshared'), task.args['state'],
                                     task.args['checkpointed'], task.args['time_limit'])
        return update, dict(kept=kept)
    if task.kind == 'evaluate':
        return json.dumps(trainer.evaluate(inputs['weights'], inputs.get('unshared'),
                                           task.args['state'])).encode(), {}
    raise FedSegError(f'a trainer does not know the task {task.kind!r:.40}')


def do_and_finish(trainer: SiteTrainer, task: Task, desk: Desk) -> None:
    """Do one task, and have its result, or what was wrong, ready for the server."""
    task.state = 'running'
    try:
        log.info('%s', _title(task))
        output, told = do(trainer, task, desk.spool)
        desk.finish(task, output, told)
    except FedSegError as error:
        log.warning('%s', error)
        desk.finish(task, error=str(error))
    except Exception as error:  # whatever it is, the server is told, and the next task may go well
        traceback.print_exc()
        desk.finish(task, error=f'{reason(error, typed=True)}; the traceback is in the log of {desk.name}')


def main(kit: str, site_yaml: str) -> None:
    """Answer the server until the process is ended."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stdout)
    run = wire.run_folder(kit)
    os.chdir(run)  # a relative path in a received config leads nowhere
    name = site_name(Path(kit))
    config = SiteConfig.read(Path(site_yaml))
    for module in config.imports:
        __import__(module)
    spool = Spool(run / 'spool')
    desk = Desk(spool, name)
    trainer = SiteTrainer(name, config, run / 'runs')
    with wire.serve(run / 'trainer.sock', desk.answer):
        log.info('%s is ready, and trains when the server asks.', name)
        while True:
            task = desk.tasks.get()
            do_and_finish(trainer, task, desk)


def _title(task: Task) -> str:
    if task.kind == 'setup':
        return 'The server has sent a run: building its model and looking at the images.'
    if task.kind == 'train':
        return f'Training round {int(task.args["round"]) + 1}.'
    return f'Evaluating the global model after round {int(task.args["round"])}.'


if __name__ == '__main__':
    main(*sys.argv[1:])
