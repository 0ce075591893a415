"""Models that the config for a folder of images may start from."""

#: By name: the config that is inherited, and for what.
MODELS = {'small': ('fedseg_mm::fedavg/upernet_own_folder_backce.py', 'a small model, minutes on a CPU'),
          'deeplabv3': ('fedseg_mm::fedavg/deeplabv3_own_folder_backce.py', 'DeepLabV3 with a ResNet-50, for a GPU')}
