"""Reads Rust source just well enough to measure it: blanks out comments and literals, drops test modules,
finds functions, resolves `use` paths. Used by structure.py; knows nothing of the rules."""

import re
from dataclasses import dataclass, field

_RAW_STRING = re.compile(r'\b(?:b|c)?r(#*)"')
_CHAR = re.compile(r"b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^\\'])'")


def blank(text: str) -> str:
    """The same text with comments, strings and character literals turned to spaces, line breaks kept."""
    out, i, n = [], 0, len(text)

    def skip(end: int) -> None:
        nonlocal i
        out.append(re.sub(r"[^\n]", " ", text[i:end]))
        i = end

    while i < n:
        two = text[i : i + 2]
        if two == "//":
            end = text.find("\n", i)
            skip(n if end < 0 else end)
        elif two == "/*":
            depth, j = 1, i + 2
            while j < n and depth:
                if text[j : j + 2] == "/*":
                    depth, j = depth + 1, j + 2
                elif text[j : j + 2] == "*/":
                    depth, j = depth - 1, j + 2
                else:
                    j += 1
            skip(j)
        elif text[i] in "rbc" and (raw := _RAW_STRING.match(text, i)):
            end = text.find('"' + raw[1], raw.end())
            skip(n if end < 0 else end + 1 + len(raw[1]))
        elif text[i] == '"':
            j = i + 1
            while j < n and text[j] != '"':
                j += 2 if text[j] == "\\" else 1
            skip(min(j + 1, n))
        elif text[i] in "'b" and (char := _CHAR.match(text, i)):
            skip(char.end())
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


def _closing(text: str, opening: int) -> int:
    """The index of the bracket that closes the one at `opening` (text already blanked), or the text's end."""
    pairs = {"{": "}", "(": ")", "[": "]"}
    close, depth = pairs[text[opening]], 0
    for i in range(opening, len(text)):
        if text[i] == text[opening]:
            depth += 1
        elif text[i] == close:
            depth -= 1
            if depth == 0:
                return i
    return len(text) - 1


_TEST_ITEM = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(?:mod|fn|use|impl|const|static|struct)\b[^;{]*")


def without_tests(text: str) -> str:
    """Blanked text with each `#[cfg(test)]` item removed, its lines too."""
    while match := _TEST_ITEM.search(text):
        end = match.end()
        if end < len(text) and text[end] == "{":
            end = _closing(text, end)
        text = text[: match.start()] + text[end + 1 :]
    return text


@dataclass
class Function:
    name: str
    line: int
    lines: int


_FN = re.compile(r"\bfn\s+(\w+)")


def functions(text: str) -> list[Function]:
    """Each function with a body in blanked text; `line` counts from 1, `lines` from `fn` to the closing brace."""
    found = []
    for match in _FN.finditer(text):
        i = match.end()
        while i < len(text) and text[i] not in "{;":
            # A default or a const expression in brackets may hold a semicolon: `fn f(x: [u8; 4])`.
            i = _closing(text, i) + 1 if text[i] in "([" else i + 1
        if i < len(text) and text[i] == "{":
            end = _closing(text, i)
            found.append(
                Function(match[1], text.count("\n", 0, match.start()) + 1, text.count("\n", match.start(), end) + 1)
            )
    return found


@dataclass
class Module:
    path: tuple[str, ...]
    text: str
    children: set[str] = field(default_factory=set)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)


_USE = re.compile(r"\buse\s+([^;]+);")
_PATH = re.compile(r"\b(?:crate|super|self)(?:\s*::\s*\w+)+")


def use_paths(tree: str, prefix: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
    """A use tree as (name it brings in, full path). `a::{b, c as d}` gives (b, a::b) and (d, a::c)."""
    tree = tree.strip()
    if not tree:
        return []
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = re.sub(r"\s+", " ", tree).partition(" as ")
        parts = prefix + tuple(p.strip() for p in path.split("::") if p.strip())
        if parts and parts[-1] == "self":
            parts = parts[:-1]
        return [(alias.strip() or parts[-1], parts)] if parts else []
    head = prefix + tuple(p.strip() for p in tree[:brace].split("::") if p.strip())
    found, depth, start = [], 0, brace + 1
    end = _closing(tree, brace)
    for i in range(brace + 1, end + 1):
        if i == end or (tree[i] == "," and depth == 0):
            found += use_paths(tree[start:i], head)
            start = i + 1
        elif tree[i] in "{}":
            depth += 1 if tree[i] == "{" else -1
    return found


def references(module: Module) -> set[tuple[str, ...]]:
    """The absolute paths within its own crate that a module names, without the leading `crate`."""
    raw = [path for tree in _USE.findall(module.text) for _, path in use_paths(tree)]
    raw += [tuple(re.split(r"\s*::\s*", m[0])) for m in _PATH.finditer(_USE.sub(" ", module.text))]
    return {path for r in raw if (path := absolute(module.path, r)) is not None}


def absolute(at: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, ...] | None:
    """`path` as written in module `at`, from the crate's root; None if it is not of this crate."""
    if path[0] == "crate":
        return path[1:]
    if path[0] not in ("self", "super"):
        return None
    base = list(at)
    for i, part in enumerate(path):
        if part == "super":
            if not base:
                return None
            base.pop()
        elif part != "self":
            return tuple(base) + path[i:]
    return tuple(base)


def owner(modules: dict[tuple[str, ...], Module], path: tuple[str, ...], depth: int = 8) -> tuple[str, ...]:
    """The module in which the item at an absolute path is defined, re-exports followed."""
    at: tuple[str, ...] = ()
    for i, part in enumerate(path):
        if part in modules[at].children and at + (part,) in modules:
            at += (part,)
        elif part in modules[at].names and depth:
            return owner(modules, modules[at].names[part] + path[i + 1 :], depth - 1)
        else:
            break
    return at
