"""What costs processor time in botocore and moto, and is the same each time, is made once a process."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape, quoteattr

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


@cache
def make_once() -> None:
    """Mend botocore and moto in this process: what they answer stays the same."""
    read_models_once()
    look_up_once()
    make_keys_once()
    write_quickly()


def read_models_once() -> None:
    """botocore's models, which each session reads anew."""
    from botocore.loaders import JSONFileLoader

    load = cache(JSONFileLoader().load_file)  # by path: each session has a loader of its own
    JSONFileLoader.load_file = lambda _loader, path: load(path)


def look_up_once() -> None:
    """The names of a moto class's methods and of moto's modules, which each call looks up."""
    from moto import backends
    from moto.core import responses  # moto reads models while it is imported

    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    responses.method_names_from_class = cache(responses.method_names_from_class)


def make_keys_once() -> None:
    """The RSA keys that moto makes for each symmetric key and each key pair, and uses nowhere."""
    from moto.ec2.models import key_pairs
    from moto.kms import models

    key_pairs.random_rsa_key_pair = cache(key_pairs.random_rsa_key_pair)
    generate, unused = models.generate_private_key, models.generate_private_key("RSA_2048")
    models.generate_private_key = lambda spec: unused if spec == "SYMMETRIC_DEFAULT" else generate(spec)


def write_quickly() -> None:
    """The names under which moto's answers may hold a member, which it derives for each value; and its XML."""
    from moto.core import serialize

    usual = serialize.ResponseSerializer.get_value
    serialize.ResponseSerializer.get_value = lambda self, value, key, shape: (
        picked(self, value, key, shape)
        if type(self._value_picker) is serialize.XFormedAttributePicker
        else usual(self, value, key, shape)
    )
    serialize.xmltodict = SimpleNamespace(unparse=unparse)


def picked(serializer: Any, obj: Any, key: str, shape: Any) -> Any:
    """A member of what moto answers, as moto's own picker finds it."""
    from moto.core.utils import MISSING, get_value

    picker = serializer._value_picker
    kept, at = shape.__dict__.setdefault("picked", {}), (obj.__class__, key, len(picker.response_transformers))
    if at not in kept:
        kept[at] = possible(picker, obj, key, shape)
    names, changes = kept[at]
    found = next((value for name in names if (value := get_value(obj, name, MISSING)) is not MISSING), None)
    path = ".".join((*serializer.path, key)) if changes else ""
    return next((change(found) for end, change in changes if path.endswith(end)), found)


def possible(picker: Any, obj: Any, key: str, shape: Any) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """The names that a member may have in an object of this class, and what may have to be done with its value."""
    from moto.core.serialize import AttributePickerContext

    changes = picker.response_transformers.items()
    names = picker.get_possible_keys(AttributePickerContext(obj=obj, key=key, shape=shape))
    return tuple(dict.fromkeys(names)), tuple(one for one in changes if one[0].rpartition(".")[2] in (key, one[0]))


def unparse(document: dict[str, Any], *, full_document: bool = True, **_: Any) -> str:
    """What xmltodict's function of this name writes, elements that are empty being short."""
    ((root, value),) = document.items()
    parts = [HEAD] if full_document else []
    emit(root, value, parts)
    return "".join(parts)


def emit(name: str, value: Any, parts: list[str]) -> None:
    """An element, or one for each entry of a list."""
    check_name(name)
    many = hasattr(value, "__iter__") and not isinstance(value, str | bytes | dict)
    for one in value if many else (value,):
        if isinstance(one, dict):
            nested(name, one, parts)
        elif text := "" if one is None else plain(one):
            parts += (f"<{name}>", escape(text), f"</{name}>")
        else:
            parts.append(f"<{name}/>")


def nested(name: str, value: dict[str, Any], parts: list[str]) -> None:
    """An element with attributes, other elements and text."""
    begun = [f"<{name}"]
    inner: list[str] = []
    for key, one in value.items():
        if key.startswith("@"):
            check_name(key[1:])
            begun.append(f" {key[1:]}={quoteattr('' if one is None else plain(one))}")
        elif key != "#text" and not (isinstance(one, list) and not one):
            emit(key, one, inner)
    text = value.get("#text")
    if text is not None:
        inner.append(escape(plain(text)))
    parts += begun
    parts += (">", *inner, f"</{name}>") if any(inner) else ("/>",)


def plain(value: Any) -> str:
    """A value as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@cache
def check_name(name: str) -> None:
    """Raise ValueError for what is no name of an element."""
    from xmltodict import _validate_name

    _validate_name(name, "element")
