"""Checks docstrings of what others call: every parameter, result and exception stands in a section of Google's form."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Function = ast.FunctionDef | ast.AsyncFunctionDef
SECTIONS: Final = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")
#: A first sentence that says what is returned: "Return …", "Remove and return …", "Whether …", "Build the target …".
_RETURNS: Final = re.compile(
    r"(Return|Yield|Whether|Iterate|Open|Make|Create|Build|Read|Decode|Encode|Parse)\b|[^.]*\breturn\b"
)
_SECTION: Final = re.compile(rf"^({'|'.join(SECTIONS)}):[ \t]*$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^ {4}(\*{0,2}[\w.]+)(?: \([^)]*\))?: ", re.MULTILINE)


def sections(docstring: str) -> dict[str, str]:
    """Return the text of each section of a docstring, and what stands before the first one under the empty name."""
    parts = _SECTION.split(docstring)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> list[str]:
    """Return the names that the entries of a section have, without stars, in their order."""
    return [name.lstrip("*") for name in _ENTRY.findall(section)]


def parameters(function: Function) -> list[str]:
    """Return the names of a function's parameters, without `self` and `cls`."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [each.arg for each in (given.vararg, given.kwarg) if each is not None]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def raised(function: Function) -> set[str]:
    """Return the names of the exceptions that a function's own `raise` statements let out.

    One that a `try` of the same function catches by its name does not count, and neither does `raise` of a variable.
    """
    found: set[str] = set()

    def walk(node: ast.AST, caught: frozenset[str]) -> None:
        if isinstance(node, Function | ast.Lambda | ast.ClassDef) and node is not function:
            return
        if isinstance(node, ast.Try):
            here = caught | {_name(each) for handler in node.handlers for each in _types(handler)}
            for child in node.body:
                walk(child, here)
            for child in (*node.handlers, *node.orelse, *node.finalbody):
                walk(child, caught)
            return
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = _name(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if name[:1].isupper() and name not in caught and name not in ("NotImplementedError", "AssertionError"):
                found.add(name)
        for child in ast.iter_child_nodes(node):
            walk(child, caught)

    walk(function, frozenset())
    return found


def _types(handler: ast.ExceptHandler) -> list[ast.expr]:
    if handler.type is None:
        return []
    return list(handler.type.elts) if isinstance(handler.type, ast.Tuple) else [handler.type]


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def faults_of_function(
    function: Function, docstring: str, *, of_class: str = "", initializer: bool = False
) -> Iterator[str]:
    """Yield what a docstring lacks, or says of something that is not there.

    A single parameter and a result may be explained by the first sentence. Two and more parameters, and every exception
    that the function raises itself, have an entry each. What many methods of a class share may stand once, in the text
    of the class: a parameter by its name in backticks, and what they return by the name of its type.

    Args:
        function: The function.
        docstring: Its docstring, or that of the class of an `__init__`.
        of_class: The docstring of the class of a method.
        initializer: Whether the function is an `__init__`, whose parameters all have an entry.
    """
    found = sections(docstring)
    shared = set(re.findall(r"`(\w+)`", sections(of_class)[""]))
    names = parameters(function)
    told = entries(found.get("Args", ""))
    own = names if initializer else [name for name in names if name not in shared]
    if len(own) > 1 or (initializer and own) or told:
        if lacking := [name for name in own if name not in told]:
            yield f"Args: lacks {', '.join(lacking)}"
        if unknown := [name for name in told if name not in names]:
            yield f"Args: names {', '.join(unknown)}, which is no parameter"
    result = ast.unparse(function.returns) if function.returns is not None else "None"
    if (
        not initializer
        and result not in ("None", "NoReturn", "Never", "Self")
        and not {"Returns", "Yields"} & found.keys()
        and not _RETURNS.match(docstring)
        and not (set(re.findall(r"\w+", result)) & shared and re.search(r"\breturns?\b", of_class))
    ):
        yield f"Returns: is missing, and the first sentence does not say what the {result} is"
    said = {name.rpartition(".")[2] for name in entries(found.get("Raises", ""))}
    if silent := raised(function) - said:
        yield f"Raises: lacks {', '.join(sorted(silent))}"
    if re.search(r"\bRaises `", found[""]):
        yield "Raises: stands in the text and not in a section"


def faults(tree: ast.Module, documented: Mapping[str, Sequence[str]] | None = None) -> Iterator[str]:
    """Yield each fault of a module's public functions and methods, as `name: what is wrong`.

    Properties and methods without parameters, result and exceptions need one sentence. A method that a Protocol or a
    base class documents needs none, or says in one what is special: the class derives from the other, or names it in
    backticks in its docstring.

    Args:
        tree: The module.
        documented: What `documented_methods` returns for all modules.
    """
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield from _one(node.name, node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _class(node, documented or {})


def _class(node: ast.ClassDef, documented: Mapping[str, Sequence[str]]) -> Iterator[str]:
    own = ast.get_docstring(node) or ""
    above = set(map(_base, node.bases))
    above |= set(re.findall(r"`(?:\w+\.)*(\w+)`", own))
    inherited = {name for each in above - {node.name} for name in documented.get(each, ())}
    for method in node.body:
        if not isinstance(method, Function):
            continue
        name = f"{node.name}.{method.name}"
        if method.name == "__init__":
            yield from (f"{name}: {fault}" for fault in faults_of_function(method, own, initializer=True))
        elif (method.name == "__call__" or not method.name.startswith("_")) and method.name not in inherited:
            yield from _one(name, method, own)


def _one(name: str, function: Function, of_class: str = "") -> Iterator[str]:
    docstring = ast.get_docstring(function)
    decorators = {
        ast.unparse(each.func if isinstance(each, ast.Call) else each).rpartition(".")[2]
        for each in function.decorator_list
    }
    if decorators & {"overload", "setter"}:
        return
    if docstring is None:
        yield f"{name}: has no docstring"
    elif not decorators & {"property", "cached_property"}:
        yield from (f"{name}: {fault}" for fault in faults_of_function(function, docstring, of_class=of_class))


def documented_methods(trees: Sequence[ast.Module]) -> dict[str, list[str]]:
    """Return the methods with a docstring of each Protocol and abstract class in these modules, by the class's name."""
    return {
        node.name: [m.name for m in node.body if isinstance(m, Function) and ast.get_docstring(m)]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and {"Protocol", "ABC"} & set(map(_base, node.bases))
    }


def _base(node: ast.expr) -> str:
    return _name(node.value if isinstance(node, ast.Subscript) else node)
