from .class_iou import ClassIoU, keep_class_iou

__all__ = ['ClassIoU', 'keep_class_iou']
