"""Writing manifests: only what `language.parse` reads back as the same values."""

from __future__ import annotations

import math
from typing import Any

import yaml

from ..errors import BundleError
from ..names import forbidden, shown
from . import language
from .scanning import scalar


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and quotes each text that the language of manifests would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    try:
        is_text = isinstance(scalar(value), str) and value[:1] not in ("?", ":")
    except ValueError:
        is_text = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_text else "'")


def _number(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    if not math.isfinite(value):
        raise yaml.representer.RepresenterError(f"the number {value}, which is not finite,")
    node: yaml.ScalarNode = yaml.SafeDumper.represent_float(dumper, value)
    return node


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _number)


def dump(entries: dict[str, Any]) -> str:
    """Return a mapping as the text of a manifest.

    Args:
        entries: Texts, numbers, booleans, None, and lists and dicts of them.

    Raises:
        yaml.YAMLError: There is another value among them, or one that the language of manifests does not hold.
    """
    expected = _plain(entries)
    text: str = yaml.dump(entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    try:
        read_back = language.parse(text)
    except BundleError as error:
        raise yaml.YAMLError(f"the manifest {error}") from error
    if read_back != expected:
        raise yaml.YAMLError("a value that would be read back as another one")
    return text


def _plain(value: Any) -> Any:
    """Return the value as it should be read back, after checking what `yaml` does not."""
    if isinstance(value, dict):
        if strange := [key for key in value if not isinstance(key, str) or forbidden(key)]:
            raise yaml.YAMLError(f"the key {strange[0]!a:.80}, which is not a plain text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str) and (problem := forbidden(value)):
        raise yaml.YAMLError(f"the text {shown(value)}: {problem}")
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
