"""params.yaml as frozen, validated pydantic models: the base model and the loader.

Each section's model is a file of its own in ``params/``, so that a change to one section's model is a change to the
stages that read it alone.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from selftrain.plumbing.errors import UserError

MODULE_NAME = r"^[a-z][a-z0-9_]*$"
"""Of what is found by the name of its file."""


class Section(BaseModel):
    """A validated part of params.yaml. Unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Yes and no are no numbers, though Python takes them for 1 and 0."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and not _mentions(field.annotation, (bool, Any)):
            raise ValueError(f"expected no `{str(value).lower()}` here")
        return value


def _mentions(annotation: Any, types: tuple[Any, ...]) -> bool:
    return annotation in types or any(_mentions(part, types) for part in get_args(annotation))


SectionT = TypeVar("SectionT", bound=Section)


def load_params(path: Path) -> dict[str, Any]:
    """Read a params file as DVC reads it (YAML 1.2).

    Raises UserError if the file is missing, is not YAML, or is not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        params = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a project's folder has one, and `selftrain init` makes one") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {type(params).__name__}")
    for name in params:
        if not isinstance(name, str):
            raise UserError(f"{path}: {name!r} is no section's name")
    return params


def parse_section(values: Any, model: type[SectionT], where: str) -> SectionT:
    """Validate one section. ``where`` names it in errors, e.g. ``params.yaml: ingest``."""
    return _parse(values, model, lambda path: where)


def parse_overlaid(defaults: Any, overlay: Any, model: type[SectionT], defaults_where: str, own_where: str) -> SectionT:
    """Validate defaults with a run's own values laid over them; errors name the one that holds the mistake."""
    for values, where in ((defaults, defaults_where), (overlay, own_where)):
        if values is not None and not isinstance(values, Mapping):
            raise UserError(f"{where}: expected a mapping of parameters, found {values!r}")

    def place(path: list[str]) -> str:
        return defaults_where if _depth(defaults, path) > _depth(overlay, path) else own_where

    return _parse(merged(defaults, overlay), model, place)


def _parse(values: Any, model: type[SectionT], where: Callable[[list[str]], str]) -> SectionT:
    if values is not None and not isinstance(values, Mapping):
        raise UserError(f"{where([])}: expected a mapping of parameters, found {values!r}")
    try:
        return model.model_validate(dict(values or {}))
    except ValidationError as error:
        # What is unknown explains what is missing, so it comes first.
        errors = sorted(error.errors(), key=lambda item: item["type"] == "missing")
        raise UserError("; ".join(dict.fromkeys(_explain(item, model, where) for item in errors))) from None


_IN_FILE = re.compile(r"(?!(int|float|str|bool)$)[A-Za-z_][A-Za-z0-9_]*|\d+")


def _depth(values: Any, path: list[str]) -> int:
    """How far a path leads into nested values."""
    for depth, name in enumerate(path):
        if not isinstance(values, Mapping) or name not in values:
            return depth
        values = values[name]
    return len(path)


def load_seed(params: Mapping[str, Any], path: Path) -> int:
    """The one seed that everything random in the project derives from."""
    seed = params.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UserError(f"{path}: seed: expected a whole number from 0 to {2**31 - 1}, found {seed!r}")
    return seed


def merged(defaults: Any, overrides: Any) -> dict[str, Any]:
    """Overlay one mapping on another, mapping by mapping; neither is changed."""
    result = dict(defaults or {})
    for key, value in (overrides or {}).items():
        both_mappings = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_mappings else value
    return result


READABLE = 40
"""Names that a hint lists at most."""


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint for a mistyped name: the closest known one, or else all of them, if they can be read."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(known) - READABLE} more" if len(known) > READABLE else ""
    return f"known: {', '.join(sorted(known)[:READABLE])}{more}"


def _explain(item: Any, model: type[Section], where: Callable[[list[str]], str]) -> str:
    location = [str(part) for part in item["loc"]]
    if item["type"] != "extra_forbidden":
        # Pydantic names the branch of a union too, which is no part of the file; an unknown key may be any text.
        location = [part for part in location if _IN_FILE.fullmatch(part)]
    place = where(location)
    # A place that ends in a colon is a whole file.
    name = f"{place} {'.'.join(location)}" if place.endswith(":") else ".".join([place, *location])
    if item["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        known = sorted(owner.model_fields) if owner else []
        return f"{name}: unknown parameter; {did_you_mean(location[-1], known)}"
    if item["type"] == "missing":
        return f"{name}: missing; it has no default"
    given = "" if isinstance(item["input"], (dict, list)) else f" (got {item['input']!r})"
    return f"{name}: {item['msg'].removeprefix('Value error, ')}{given}"


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    for part in path:
        field = model.model_fields.get(part)
        annotation: Any = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model
