"""Pages from the templates of this folder."""

from math import isnan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup


def render(template: str, **context: Any) -> str:
    """A template filled in; text is escaped, a name that is missing is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("selftrain.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: "–" if share is None or isnan(share) else f"{share:.1%}"
    environment.filters["signed"] = lambda share: f"{share:+.1%}"
    environment.filters["p_value"] = p_value
    environment.filters["with_code"] = with_code
    return environment.get_template(template).render(context)


def with_code(text: str) -> "Markup":
    """Text of the command line as HTML: what stands in backticks is code."""
    from markupsafe import Markup, escape

    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def p_value(p: float) -> str:
    """A test's p as text; a small one is not zero."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
