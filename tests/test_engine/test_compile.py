"""MMEngine's ``compile``: the network is compiled once, and not for every client, round and size of image."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fedseg_mm.config import federate
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_second_device import ThreeConvolutions  # noqa: F401  few operations to trace


@pytest.fixture
def run(tiny_data, tmp_path):
    """Three rounds of two clients that annotate different classes; with the graphs compiled so far, per client."""

    def run(algorithm: str, how: str | None):
        graphs: list[torch.fx.GraphModule] = []
        after: list[int] = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        class Count(Hook):
            def before_round(self, runner, **kwargs):
                if how == 'wrapped' and runner.epoch == 0:  # as under torchrun, where MMEngine compiles the wrapper's
                    runner.train_loop.federation.backend.trainer.compile(True, backend=backend)

            def after_client(self, runner, update):
                after.append(len(graphs))

        torch._dynamo.reset()
        cfg = tiny_config(tiny_data, tmp_path, **{
            'train_cfg.val_interval': 9, 'federated.clients_per_round': 2, 'federated.algorithm': dict(type=algorithm),
            'model.backbone': dict(_delete_=True, type='ThreeConvolutions'),
            'param_scheduler': [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=3, by_epoch=True)]})
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = cfg.default_hooks.checkpoint = None
        if how == 'plain':
            cfg.compile = dict(backend=backend)
        federate(cfg)
        cfg.experiment_name = f'compile_{algorithm}_{how}'
        runner = Runner.from_cfg(cfg)
        runner.register_hook(Count())
        runner.train()
        torch._dynamo.reset()
        return runner.model.state_dict(), after, graphs

    return run


@pytest.mark.parametrize('algorithm, how', [
    ('FedAvg', 'plain'), pytest.param('FedSeg', 'wrapped', marks=pytest.mark.slow)])
def test_no_graph_is_compiled_for_a_client(algorithm, how, run):
    expected, none, _ = run(algorithm, None)
    weights, after, graphs = run(algorithm, how)
    assert none == [0] * 6
    assert len(after) == 6 and after[0] > 0
    assert after[0] == after[-1], after
    convolutions = [node for graph in graphs for node in graph.graph.nodes
                    if 'Conv2d' in str(node.target) or 'conv2d' in str(node.target)]
    assert len(convolutions) >= 3  # the network is in them
    assert_same_bits(weights, expected)
