"""A figure that a notebook shows; this module needs matplotlib when it is imported."""

import io

from matplotlib import figure, rc_context


class Figure(figure.Figure):
    """matplotlib's figure, which a notebook shows when a cell ends with it, without pyplot."""

    def content(self, format: str) -> bytes:
        """The file of the picture, in a format of matplotlib's; equal pictures are equal SVG files."""
        file = io.BytesIO()
        undated = {"Date": None} if format == "svg" else None
        with rc_context({"svg.hashsalt": "tinyconv"}):
            self.savefig(file, format=format, dpi=110, bbox_inches="tight", metadata=undated)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.content("png")
