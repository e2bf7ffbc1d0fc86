"""Self-training for image classifiers, with the pseudo-label set as the product.

    import selftrain as st

    project = st.open(".")
    project.repro()
    project.runs["student3"].selection()
    st.load("models/noisy_student/best").predict(["a.jpg"])

What is listed in ``__all__`` is public; nothing is imported before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from selftrain.api.model import Model, load
    from selftrain.api.moons import two_moons
    from selftrain.api.project import Project, init, open
    from selftrain.api.run import Run
    from selftrain.api.select import select
    from selftrain.api.studies import studies
    from selftrain.api.train import train

__version__ = "0.2.0"

__all__ = [
    "Model",
    "Project",
    "Run",
    "UserError",
    "__version__",
    "init",
    "load",
    "open",
    "select",
    "studies",
    "train",
    "two_moons",
]

_PLACES = {
    "Model": "model",
    "load": "model",
    "Project": "project",
    "Run": "run",
    "init": "project",
    "open": "project",
    "select": "select",
    "studies": "studies",
    "train": "train",
    "two_moons": "moons",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'selftrain' has no attribute '{name}'")
    return getattr(import_module(f"selftrain.api.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
