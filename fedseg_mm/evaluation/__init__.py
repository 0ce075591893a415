from .class_iou import ClassIoU, keep_class_iou
from .confusion_matrix import ConfusionMatrix, class_iou, mean_iou, pixel_accuracy, read_matrix, write_matrix

__all__ = ['ClassIoU', 'ConfusionMatrix', 'class_iou', 'keep_class_iou', 'mean_iou', 'pixel_accuracy', 'read_matrix',
           'write_matrix']
