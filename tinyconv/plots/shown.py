"""A figure that a notebook shows; importing this module needs matplotlib."""

import io

from matplotlib import figure, rc_context


class Figure(figure.Figure):
    """matplotlib's figure, which a notebook shows at the end of a cell, without pyplot."""

    def content(self, format: str) -> bytes:
        """Return the content of the picture's file, in one of matplotlib's formats.

        Equal pictures are equal SVG files.
        """
        file = io.BytesIO()
        undated = {"Date": None} if format == "svg" else None
        with rc_context({"svg.hashsalt": "tinyconv"}):
            self.savefig(file, format=format, dpi=110, bbox_inches="tight", metadata=undated)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.content("png")
