"""Figures with people's names in them."""
import matplotlib.figure
from matplotlib.text import Text


class Figure(matplotlib.figure.Figure):
    """Matplotlib's figure, in which a name such as ``$x_1$`` is a name and no formula."""

    def savefig(self, *args, **kwargs) -> None:
        """Write the picture."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().savefig(*args, **kwargs)
