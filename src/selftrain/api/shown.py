"""Pictures that notebooks show."""


class Svg(str):
    """A chart. It is text: SVG."""

    def _repr_svg_(self) -> str:
        return str(self)


class Html(str):
    """A piece of a page, with its images inside. It is text: HTML."""

    def _repr_html_(self) -> str:
        return str(self)
