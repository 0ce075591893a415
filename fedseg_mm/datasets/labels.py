"""Labels that are no classes."""

#: Label of a pixel whose class the client does not annotate.
UNANNOTATED = 254
#: Label of void and padding.
VOID = 255
