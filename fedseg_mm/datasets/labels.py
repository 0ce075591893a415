"""Labels that are no classes, and images that are none."""
from PIL import Image

#: Label of a pixel whose class the client does not annotate.
UNANNOTATED = 254
#: Label of void and padding.
VOID = 255
#: Pixels of the largest image that is read, as in OpenCV.
MOST_PIXELS = 1 << 30
#: What Pillow raises of a file that is no image, is damaged, or says that it is far too large.
NO_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
