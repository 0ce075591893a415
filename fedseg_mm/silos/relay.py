"""All that NVFLARE runs of this package: what carries messages from the server's process to the site's trainer.

Training, evaluation and aggregation happen in processes of our own, on either
side, which outlive NVFLARE's jobs. A relay holds nothing: whatever is lost on
the way is asked for again.

NVFLARE builds these classes by their names in the job, without arguments, and
imports no more of this package than this file needs.
"""
import json
import threading
import time
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.core_cell import FQCN, MessageHeaderKey
from nvflare.fuel.f3.cellnet.core_cell import Message as CellMessage
from nvflare.fuel.f3.cellnet.defs import ReturnCode as CellReturnCode
from nvflare.private.defs import CellChannel, new_cell_message

from fedseg_mm.silos import wire

TOPIC = 'fedseg_mm'
#: Seconds without a question after which a job ends: the training that it was for is gone.
IDLE = 900.0
#: Seconds that NVFLARE may take to be able to send and receive.
READY = 30.0


def _root(fl_ctx: FLContext) -> Path:
    """The startup kit that the process belongs to."""
    return Path(fl_ctx.get_engine().get_workspace().get_root_dir())


class SiteRelay(Executor):
    """Hands what the server asks to the site's trainer, and its answer back."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer = Path()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Listen from the start of the job on."""
        if event_type == EventType.START_RUN:
            self.trainer = wire.run_folder(_root(fl_ctx)) / 'trainer.sock'
            until = time.monotonic() + READY
            while (cell := fl_ctx.get_engine().get_cell()) is None and time.monotonic() < until:
                time.sleep(0.1)
            # and not as a handler of NVFLARE's, which is not told who asks: sites can send messages to each other
            cell.register_request_cb(channel=CellChannel.AUX_COMMUNICATION, topic=TOPIC, cb=self.receive)

    def receive(self, message: CellMessage) -> CellMessage:
        """Answer the server, and nobody else: whoever may ask a trainer may have other sites' updates."""
        if FQCN.get_root(message.get_header(MessageHeaderKey.ORIGIN) or 'nobody') != FQCN.ROOT_SERVER:
            return new_cell_message({MessageHeaderKey.RETURN_CODE: CellReturnCode.AUTHENTICATION_ERROR})
        return new_cell_message({MessageHeaderKey.RETURN_CODE: CellReturnCode.OK}, self.hand_on(message.payload))

    def hand_on(self, request: Shareable) -> Shareable:
        """Ask the trainer, and answer what it answers."""
        try:
            head, body = wire.ask(self.trainer, json.loads(request['head']), request['body'], timeout=60)
        except OSError as error:
            head, body = dict(no_way='its trainer is not up', reason=str(error)), b''
        reply = make_reply(ReturnCode.OK)
        reply['head'], reply['body'] = json.dumps(head), body
        return reply

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """There are no tasks."""
        return make_reply(ReturnCode.TASK_UNKNOWN)


class ServerRelay(Controller):
    """Hands what the training's process asks to the sites of the job, and their answers back."""

    def __init__(self) -> None:
        super().__init__()
        self.ended, self.asked = threading.Event(), threading.Event()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is to be prepared."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is held."""

    def process_result_of_unknown_task(self, client, task_name, client_task_id, result, fl_ctx) -> None:
        """There are no tasks."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Serve the socket that has the job's name, until the training ends or the job is aborted."""
        self.engine_of_job = fl_ctx.get_engine()
        path = wire.run_folder(_root(fl_ctx)) / f'{fl_ctx.get_job_id()}.sock'
        idle = 0.0
        with wire.serve(path, self.answer):
            while not abort_signal.triggered and not self.ended.wait(0.2) and idle < IDLE:
                idle = 0.0 if self.asked.is_set() else idle + 0.2
                self.asked.clear()

    def answer(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        """One question of the training's process."""
        self.asked.set()
        if head['op'] == 'hello':
            return {}, b''
        if head['op'] == 'end':
            self.ended.set()
            return {}, b''
        site, request = head['site'], Shareable()
        request['head'], request['body'] = json.dumps(head['ask']), body
        with self.engine_of_job.new_context() as fl_ctx:
            reply = self.engine_of_job.send_aux_request([site], TOPIC, request, head['timeout'], fl_ctx).get(site)
        code = reply.get_return_code() if reply else 'no answer'
        if code != ReturnCode.OK:
            return dict(no_way='the site does not answer', reason=str(code)), b''
        return json.loads(reply['head']), reply['body']
