"""The graph of an exported program as steps, in torch's schema (torch/_export/serde/schema.py), checked and plain.

Nothing is evaluated: an expression that stands in the file as text is never parsed. No torch here.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from teacher_cache.kinds.exported_archive import Archive, NotExportedError

_SYMBOL = re.compile(r"(?:Symbol\(')?(\w+)(?:', [\w=, ]*\))?")
"""A size that is free, as torch writes it: s52, or Symbol('s52', positive=True, integer=True)."""


class Ref(NamedTuple):
    """A value that an earlier step, or an input, has given."""

    name: str


class Special(NamedTuple):
    """A value of torch's own: `kind` is scalar_type, layout, memory_format or device; `code` as the schema has it."""

    kind: str
    code: Any


class Step(NamedTuple):
    """One operator call. An output None is not kept; `is_list`: the operator gives one list, of these outputs."""

    target: str
    arguments: Mapping[str, Any]
    outputs: Sequence[str | None]
    is_list: bool


class InputTensor(NamedTuple):
    """An input of the program. `sizes`: None for a size that is free; `symbol` names the first one where it is free."""

    name: str
    scalar_type: int
    sizes: tuple[int | None, ...]
    symbol: str | None


class OutputTensor(NamedTuple):
    """An output of the program: the value that it is, and its name for people."""

    name: str
    value: str
    scalar_type: int
    sizes: tuple[int | None, ...]


class Graph(NamedTuple):
    """A program. `weights`: by value the name of the parameter, buffer or constant that it is, and which of them."""

    inputs: Sequence[InputTensor]
    weights: Mapping[str, tuple[str, str]]
    steps: Sequence[Step]
    outputs: Sequence[OutputTensor]
    ranges: Mapping[str, tuple[int | None, int | None]]


def read_graph(archive: Archive) -> Graph:
    """The graph; NotExportedError for whatever is not a plain function of tensors."""
    try:
        return _Reader(archive.program).graph()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, NotExportedError):
            raise
        raise NotExportedError(f"its graph is not as torch writes it: {type(error).__name__}: {error}") from None


class _Reader:
    def __init__(self, program: Mapping[str, Any]) -> None:
        self._module = program["graph_module"]
        self._graph = self._module["graph"]
        self._metas = self._graph["tensor_values"]
        self._ranges = program.get("range_constraints") or {}

    def graph(self) -> Graph:
        inputs, weights = self._inputs()
        steps = [_step(node) for node in self._graph["nodes"]]
        ranges = {name: (one.get("min_val"), one.get("max_val")) for name, one in self._ranges.items()}
        return Graph(inputs, weights, steps, self._outputs(), ranges)

    def _inputs(self) -> tuple[list[InputTensor], dict[str, tuple[str, str]]]:
        inputs: list[InputTensor] = []
        weights: dict[str, tuple[str, str]] = {}
        for spec in self._module["signature"]["input_specs"]:
            kind, told = _only(spec)
            if kind == "user_input":
                form, argument = _only(told["arg"])
                if form != "as_tensor":
                    raise NotExportedError(f"an argument of forward is {form}, allowed are tensors")
                inputs.append(self._input(argument["name"]))
            elif kind == "parameter":
                weights[told["arg"]["name"]] = ("weights", told["parameter_name"])
            elif kind == "buffer":
                weights[told["arg"]["name"]] = ("weights" if told["persistent"] else "constants", told["buffer_name"])
            elif kind == "tensor_constant":
                weights[told["arg"]["name"]] = ("constants", told["tensor_constant_name"])
            elif kind != "constant_input":  # such as None: the graph has its value where it is used
                raise NotExportedError(f"it has an input of the kind {kind}, allowed are tensors")
        return inputs, weights

    def _input(self, name: str) -> InputTensor:
        meta = self._metas[name]
        first = meta["sizes"][0].get("as_expr") if meta["sizes"] else None
        symbol = None if first is None else _SYMBOL.fullmatch(first["expr_str"])
        return InputTensor(name, int(meta["dtype"]), _sizes(meta), symbol and symbol[1])

    def _outputs(self) -> list[OutputTensor]:
        values = []
        for spec in self._module["signature"]["output_specs"]:
            kind, told = _only(spec)
            form, argument = _only(told["arg"]) if kind == "user_output" else ("", {})
            if form != "as_tensor":
                raise NotExportedError(
                    f"it has an output of the kind {form or kind}, allowed are tensors: forward returns what it "
                    "computes, and changes no weights"
                )
            values.append(argument["name"])
        names = self._names(len(values))
        found = []
        for name, value in zip(names, values, strict=True):
            meta = self._metas[value]
            found.append(OutputTensor(name, value, int(meta["dtype"]), _sizes(meta)))
        return found

    def _names(self, count: int) -> list[str]:
        """The keys of the dict that forward returns; else the places 0, 1, ..."""
        for entry in self._module["module_call_graph"]:
            if entry["fqn"] == "" and entry.get("signature"):
                _, tree = json.loads(entry["signature"]["out_spec"])
                if str(tree.get("type")) in ("builtins.dict", "collections.OrderedDict"):
                    keys: list[str] = json.loads(tree["context"])
                    if len(keys) == count and all(isinstance(key, str) for key in keys):
                        return keys
        return [str(place) for place in range(count)]


def _sizes(meta: Mapping[str, Any]) -> tuple[int | None, ...]:
    return tuple(int(size["as_int"]) if "as_int" in size else None for size in meta["sizes"])


def _only(union: Mapping[str, Any]) -> tuple[str, Any]:
    """The one key of a union, and its value."""
    ((kind, value),) = union.items()
    return kind, value


def _step(node: Mapping[str, Any]) -> Step:
    arguments = {one["name"]: _argument(one["arg"]) for one in node["inputs"]}
    if len(arguments) != len(node["inputs"]):
        raise NotExportedError(f"{node['target']} has two arguments of one name")
    outputs: list[str | None] = []
    is_list = False
    for output in node["outputs"]:
        kind, value = _only(output)
        if kind == "as_tensors":
            outputs += [str(one["name"]) for one in value]
            is_list = True
        elif kind == "as_tensor":
            outputs.append(str(value["name"]))
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            outputs.append(value.get("as_name"))
        elif kind == "as_none":
            outputs.append(None)
        else:
            raise NotExportedError(f"{node['target']} gives {kind}, allowed are tensors and numbers")
    if is_list and len(node["outputs"]) != 1:
        raise NotExportedError(f"{node['target']} gives a list beside other values")
    return Step(str(node["target"]), arguments, outputs, is_list)


_PLAIN = ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings")
_SPECIAL = ("as_scalar_type", "as_memory_format", "as_layout", "as_device")
_NAMED = ("as_sym_int", "as_sym_bool", "as_sym_float")


def _argument(union: Mapping[str, Any]) -> Any:
    kind, value = _only(union)
    if kind in _PLAIN:
        return value
    if kind == "as_none":
        return None
    if kind == "as_float":
        return _float(value)
    if kind == "as_floats":
        return [_float(one) for one in value]
    if kind in _SPECIAL:
        return Special(kind.removeprefix("as_"), value)
    return _reference(kind, value)


def _reference(kind: str, value: Any) -> Any:
    """An argument that names other values."""
    if kind == "as_tensor":
        return Ref(value["name"])
    if kind == "as_tensors":
        return [Ref(one["name"]) for one in value]
    if kind in _NAMED:
        return _named(value)
    if kind in [f"{one}s" for one in _NAMED]:
        return [_named(one) for one in value]
    if kind == "as_optional_tensor":
        return None if "as_none" in value else Ref(value["as_tensor"]["name"])
    if kind == "as_optional_tensors":
        return [None if "as_none" in one else Ref(one["as_tensor"]["name"]) for one in value]
    raise NotExportedError(f"an operator has an argument {kind}, allowed are tensors, numbers and texts")


def _named(value: Mapping[str, Any]) -> Any:
    kind, told = _only(value)
    return Ref(told) if kind == "as_name" else _float(told) if kind == "as_float" else told


def _float(value: Any) -> float:
    """JSON has no infinities: torch writes them as texts."""
    known = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    return known[value] if isinstance(value, str) else float(value)


def references(step: Step) -> Iterator[str]:
    """The values that a step takes."""
    for argument in step.arguments.values():
        for one in argument if isinstance(argument, list) else [argument]:
            if isinstance(one, Ref):
                yield one.name
