"""Methods of estimating mutual information with options, as command lines spell them: rf:form=squared,steps=500."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtraffic import information
from jaxtraffic.errors import ConfigError
from jaxtraffic.information.preprocess import PREPROCESS
from jaxtraffic.information.registry import method_named


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with its options, as the command line names it."""

    label: str
    method: str
    options: Any
    preprocess: str | None = None

    def described(self) -> dict[str, Any]:
        """All that decides what it does, as JSON holds it."""
        values = {"method": self.method, "preprocess": self.preprocess or method_named(self.method).preprocess}
        values |= dataclasses.asdict(self.options)
        return json.loads(json.dumps(values, default=str))


def chosen_variants(specs: Sequence[str]) -> list[Variant]:
    """Methods with their options.

    Raises:
        ConfigError: an unknown method or option, a value that does not fit, the same twice.
    """
    variants = [variant_of(spec) for spec in specs]
    if not variants:
        raise ConfigError(f"--methods needs at least one of {', '.join(information.METHODS)}")
    labels = [variant.label for variant in variants]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"--methods names {next(label for label in labels if labels.count(label) > 1)} twice")
    return variants


def variant_of(spec: str) -> Variant:
    """`NAME` or `NAME:option=value,option=value`; the option preprocess is that of `information.estimate`.

    Raises:
        ConfigError: see `chosen_variants`.
    """
    name, _, rest = spec.partition(":")
    method = method_named(name)
    default = method.options()
    known = {field.name: field for field in dataclasses.fields(method.options)}
    changes: dict[str, Any] = {}
    for part in _split(rest):
        option, equals, text = part.partition("=")
        if not equals:
            raise ConfigError(f"--methods {spec}: write option=value, got {part!r}")
        if option == "preprocess":
            changes[option] = text
        elif option not in known:
            raise ConfigError(f"--methods {spec}: {name} has no option {option!r}; choose from "
                              f"{', '.join(sorted([*known, 'preprocess']))}")  # fmt: skip
        else:
            changes[option] = _value(spec, known[option], text, getattr(default, option))
    preprocess = changes.pop("preprocess", None)
    if preprocess is not None and preprocess not in PREPROCESS:
        raise ConfigError(f"--methods {spec}: preprocess is one of {', '.join(PREPROCESS)}")
    try:
        options = dataclasses.replace(default, **changes)
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"--methods {spec}: {error}") from error
    return Variant(spec, name, options, preprocess)


def _split(text: str) -> Iterator[str]:
    """Parts between commas that stand outside of brackets."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            yield part
            part = ""
        else:
            part += letter
    if part:
        yield part


def _value(spec: str, field: dataclasses.Field, text: str, default: Any) -> Any:
    """The text as a value of the default's type; a default of None takes any literal."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is None or (value is None and "None" in str(field.type)) or type(value) is type(default):
        return value
    raise ConfigError(f"--methods {spec}: {field.name} is like {default!r}, got {text!r}")
