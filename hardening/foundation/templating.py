"""Templates that content authors write: Jinja2 in its sandbox, with limits on work and output. Pure.

A template reads the values it is given. It calls none of their methods but a few of texts and tables, reaches no Python
through them, and makes at most `MOST` characters and rounds of loops in all: it is rendered while planning and linting.
Import this module late: it brings Jinja2 along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, timedelta
from functools import lru_cache, wraps
from itertools import islice
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hardening.foundation.limits import TEMPLATE_WORK

MOST = TEMPLATE_WORK.most
LONGEST_NUMBER = 1 << 12  # bits
WIDEST = 1000  # what a number may be that says how wide or how often
ROUND = 8  # what one round of a loop costs, beside what it makes
READING: dict[type, set[str]] = {
    str: {
        *("capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "islower", "isspace"),
        *("isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rpartition", "rsplit", "rstrip"),
        *("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
    },
    list: {"count", "index"},
    tuple: {"count", "index"},
    dict: {"get", "items", "keys", "values"},
    date: {"isoformat"},
    timedelta: {"total_seconds"},
}
FILTERS = {
    *("abs", "attr", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "indent", "int"),
    *("items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace"),
    *("reverse", "round", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
}
SIZED = (str, bytes, list, tuple, dict, range)
TOO_MUCH = f"makes more than {TEMPLATE_WORK} allows"
_spent: ContextVar[int] = ContextVar("spent")


class _TooMuchError(SecurityError):
    """A template made more than it may."""


def render(source: str, values: Mapping[str, Any], environment: Sandbox) -> str:
    """The template `source` with `values`. Raises jinja2.TemplateError for all that is wrong with it."""
    with _bounded(source):
        return "".join(environment.compiled(source).generate(**values))


def check(source: str, environment: Sandbox) -> None:
    """Raises jinja2.TemplateError where `source` is no template; renders nothing."""
    with _bounded(source):
        environment.compiled(source)


@contextmanager
def _bounded(source: str) -> Iterator[None]:
    """Count from nothing what `source` makes; what Python says of a template is a jinja2.TemplateError too."""
    if len(source) > MOST:
        raise _TooMuchError(f"is itself longer than {TEMPLATE_WORK} allows")
    kept = _spent.set(0)
    try:
        yield
    except (RecursionError, MemoryError, OverflowError, SyntaxError) as error:
        raise _TooMuchError(f"too large or too deeply nested: {type(error).__name__}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, NameError) as error:  # 1e999: `inf`
        raise TemplateError(f"{type(error).__name__}: {error}") from None
    finally:
        _spent.reset(kept)


def spend(amount: int) -> None:
    """Count what a template makes. Raises jinja2.TemplateError beyond MOST."""
    spent = _spent.get(0) + amount
    if spent > MOST:
        raise _TooMuchError(TOO_MUCH)
    _spent.set(spent)


def _weigh(value: Any) -> int:
    """The characters that `value` is as text, roughly, and items; stops to count beyond MOST."""
    weight, pending = 0, [value]
    while pending and weight <= MOST:
        item = pending.pop()
        if isinstance(item, str | bytes):
            weight += len(item) + ROUND
        elif isinstance(item, Mapping):
            weight += len(item) + ROUND
            pending += [part for pair in islice(item.items(), MOST) for part in pair]
        elif isinstance(item, list | tuple | set | frozenset):
            weight += len(item) + ROUND
            pending += islice(item, MOST)
        elif isinstance(item, range):
            weight += len(item) * ROUND
        else:
            weight += item.bit_length() // 3 + 1 if isinstance(item, int) else 1
    return weight


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also counts what is made. For configuration files: it escapes nothing for HTML."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, loader: BaseLoader | None = None, *, trim_blocks: bool = False) -> None:
        super().__init__(
            loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=trim_blocks,
            autoescape=False,
        )  # fmt: skip
        self.globals = {"range": _range, "namespace": self.globals["namespace"]}
        self.filters = {name: _counted(name, self.filters[name]) for name in FILTERS}
        self.filters |= {"~text": _counting_text, "~round": _counting_rounds, "~joined": _joined}
        self._first_compiled = lru_cache(maxsize=256)(self._compile_first)

    def compiled(self, source: str) -> Template:
        """The template `source`, compiled once for all its renderings; what its constants make counts for each."""
        template, spent = self._first_compiled(source)
        _spent.set(spent)
        return template

    def _compile_first(self, source: str) -> tuple[Template, int]:
        return self.from_string(source), _spent.get()

    def _generate(self, source: nodes.Template, *args: Any, **more: Any) -> str:
        """Compile the parsed template, in which all that it prints, joins and goes through is counted."""
        for loop in list(source.find_all(nodes.For)):
            loop.iter = _through("~round", loop.iter)
        for output in list(source.find_all(nodes.Output)):
            output.nodes = [_through("~text", _plain(part)) for part in output.nodes]
        _replace_joins(source)
        return super()._generate(source, *args, **more)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have `obj.attr`: data, and what reads texts, lists and tables."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        reading = next((names for kind, names in READING.items() if isinstance(obj, kind)), set())
        own = type(obj).__module__.startswith("jinja2.")  # the `loop` of a loop, a macro, a block
        return not callable(value) or own or attr in reading

    def wrap_str_format(self, _value: Any) -> None:
        """Let `format` be refused as the other methods are: how wide it writes, its text says."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of `left operator right`, unless it would be too much."""
        _require_small(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        spend(_size(result))
        return result

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """What calling `obj` gives; each call counts."""
        spend(ROUND + sum(_size(arg) for arg in args if isinstance(obj, Macro)))
        result = super().call(context, obj, *args, **kwargs)
        spend(0 if isinstance(obj, Macro) else _size(result))
        return result


def _size(value: Any) -> int:
    """What `value` itself takes, without what stands in it."""
    return len(value) if isinstance(value, SIZED) else 1


def _require_small(operator: str, left: Any, right: Any) -> None:
    """Raises jinja2.TemplateError where the result of an operation would be too long."""
    if operator == "%" and isinstance(left, str | bytes):
        raise SecurityError("`%` on a text: join texts by `~`")
    if operator == "*":
        times, long = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(long, str | bytes | list | tuple) and isinstance(times, int):
            spend(max(0, min(times, MOST + 1)) * len(long))
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    if bits > LONGEST_NUMBER:
        raise _TooMuchError(f"makes a number of more than {LONGEST_NUMBER} bits (limit LONGEST_NUMBER)")


def _range(*numbers: int) -> range:
    made = range(*numbers)
    spend(len(made))
    return made


def _counted(name: str, made_by: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `made_by`, unless its result would be too much; what it would make bit by bit it makes at once."""

    @wraps(made_by)
    def counted(*args: Any, **kwargs: Any) -> Any:
        given = args[1:] if getattr(made_by, "jinja_pass_arg", None) else args
        listed = [list(_limited(value)) if isinstance(value, Iterator) else value for value in given]
        weight = sum(map(_weigh, [*listed, *kwargs.values()]))
        numbers = [value for value in (*listed[1:], *kwargs.values()) if isinstance(value, int)]
        if any(value > WIDEST for value in numbers) and name in {"indent", "round"}:
            raise _TooMuchError(f"{name} by more than {WIDEST} (limit WIDEST)")
        spend(weight + _growth(name, listed, kwargs))
        result = made_by(*args[: len(args) - len(given)], *listed, **kwargs)
        return list(_limited(result)) if isinstance(result, Iterator) else result

    return counted


def _growth(name: str, given: list[Any], named: Mapping[str, Any]) -> int:
    """What a filter may make beyond what it is given."""
    texts = [str(value) for value in (*given[1:], *named.values()) if isinstance(value, str)]
    longest = max(map(len, texts), default=0)
    if name == "replace":
        return (len(str(given[0])) + 1) * longest
    if name == "join":
        return _size(given[0]) * longest
    if name in {"indent", "tojson"}:
        lines = str(given[0]).count("\n") + 1 if name == "indent" else _weigh(given[0])
        return lines * max(longest, 4, *(value for value in given[1:] if isinstance(value, int)))
    return 0


def _limited(values: Iterable[Any], cost: int = 1) -> Iterator[Any]:
    for value in values:
        spend(cost)
        yield value


def _through(name: str, inner: Any) -> nodes.Expr:
    return nodes.Filter(inner, name, [], [], None, None, lineno=inner.lineno)


def _plain(part: Any) -> Any:
    return nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part


def _replace_joins(node: nodes.Node) -> None:
    """Let every `a ~ b` below `node` be counted."""
    for join in list(node.find_all(nodes.Concat)):
        join.nodes = [_through("~joined", nodes.List(join.nodes, lineno=join.lineno))]


@pass_context  # so that Jinja does not work it out while it compiles
def _counting_text(_context: Any, value: Any) -> str:
    spend(_weigh(value))
    return str(value)


@pass_context
def _counting_rounds(_context: Any, values: Any) -> list[Any]:
    return list(_limited(values, ROUND))


@pass_context
def _joined(_context: Any, parts: list[Any]) -> str:
    spend(sum(map(_weigh, parts)))
    return "".join(map(str, parts))
