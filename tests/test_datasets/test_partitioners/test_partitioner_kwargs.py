"""A partitioner of a third party's, whose constructor passes arguments on."""
from fedseg_mm.datasets import IIDPartitioner
from fedseg_mm.registry import PARTITIONERS, build
from tests.conftest import tiny_config
from tests.test_engine.test_federated_loop import train


@PARTITIONERS.register_module()
class Shuffled(IIDPartitioner):

    def __init__(self, times=1, **kwargs):
        super().__init__(**kwargs)
        self.shuffles = times  # under another name than the argument's


def test_arguments_that_are_passed_on(tiny_data, tmp_path):
    partitioner = dict(type='Shuffled', times=2, num_clients=4, seed=1)
    assert build(PARTITIONERS, partitioner, 'federated.partitioner').num_clients == 4
    runner = train(tiny_config(tiny_data, tmp_path, **{
        'federated.partitioner': partitioner, 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}))
    made_by = runner.train_loop.federation.partition.made_by
    assert made_by['type'] == 'Shuffled' and made_by['num_clients'] == 4 and made_by['seed'] == 1
