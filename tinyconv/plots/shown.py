"""A figure that a notebook shows; this module needs matplotlib when it is imported."""

import io

from matplotlib import figure


class Figure(figure.Figure):
    """matplotlib's figure, which a notebook shows when a cell ends with it, without pyplot."""

    def content(self, format: str) -> bytes:
        """The file of the picture, in a format of matplotlib's."""
        file = io.BytesIO()
        self.savefig(file, format=format, dpi=110, bbox_inches="tight")
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.content("png")
