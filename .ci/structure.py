"""The rules of structure that no compiler checks; `.ci/lint` runs it. Each rule is a function from the tree to complaints.

    structure.py              checks the repository
    structure.py --self-test  checks that each rule catches a violation
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import rust_source as rust

FILE_LINES = 400
FUNCTION_LINES = 80

# What each crate of the workspace may see of the others. The direction is the architecture.
MAY_SEE = {
    "weft-model": set(),
    "weft-xds": {"weft-model"},
    "weft-k8s": {"weft-model"},
    "weft-init": set(),
    "weft-proxy": {"weft-model", "weft-xds"},
    "weft-control-plane": {"weft-model", "weft-xds", "weft-k8s"},
    "weft-local": {"weft-model", "weft-k8s"},
    "weft": {"weft-model", "weft-k8s", "weft-local"},
    "weft-shop": set(),
    "weft-tests": {"weft-model", "weft-xds", "weft-k8s", "weft-local"},
}

# Crates that do I/O, or exist to do it. None may be below weft-model, at any depth.
IO_CRATES = re.compile(
    r"^(tokio(-.*)?|async-.*|smol|mio|socket2|hyper(-.*)?|h2|reqwest|tonic(-.*)?|tower(-.*)?|kube(-.*)?|nix|rustix|notify"
    r"|rustls|tokio-rustls|openssl|hickory-.*|k8s-openapi|envoy-types|gateway-api)$"
)
IO_PATHS = re.compile(r"\bstd\s*::\s*(?:fs|process|env|thread)\b|\bstd\s*::\s*net\s*::\s*(?:Tcp|Udp)\w+|\b(?:Instant|SystemTime)\s*::\s*now\b")

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
# Marks of unfinished work, and traces of the machine a text was written on.
UNWELCOME = re.compile(
    r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|\b(?:to" r"do|unimple" r"mented)!\s*\(|(?<![\w.~}])/(?:work|home)/\w"
)
TEXTS = {".rs", ".py", ".sh", ".md", ".toml", ".yaml", ".yml", ""}


def tracked(root: Path) -> list[Path]:
    """Files git knows or would add, so that a new file is judged before it is committed."""
    out = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True
    ).stdout.decode()
    return sorted({path for name in out.split("\0") if name and (path := root / name).is_file()})


def is_test(root: Path, path: Path) -> bool:
    parts = path.relative_to(root).parts
    return path.name == "tests.rs" or any(p in ("tests", "benches", "fuzz_targets") for p in parts[:-1])


def sources(root: Path) -> list[Path]:
    return [p for p in tracked(root) if p.suffix == ".rs" and not is_test(root, p)]


def lengths(root: Path) -> Iterator[str]:
    for path in sources(root):
        name = path.relative_to(root)
        text = rust.blank(path.read_text())
        kept = rust.without_tests(text)
        if (lines := kept.count("\n")) >= FILE_LINES:
            yield f"{name}: {lines} lines without tests; the limit is under {FILE_LINES}"
        test_names = {f.name for f in rust.functions(text)} - {f.name for f in rust.functions(kept)}
        for function in rust.functions(text):
            if function.lines >= FUNCTION_LINES and function.name not in test_names:
                yield f"{name}:{function.line}: fn {function.name} has {function.lines} lines; the limit is under {FUNCTION_LINES}"


def headers(root: Path) -> Iterator[str]:
    for path in sources(root):
        if not path.read_text().startswith("//!"):
            yield f"{path.relative_to(root)}: starts without a `//!` header (its role and its neighbours)"


def module_tree(source: Path, root_file: Path) -> dict[tuple[str, ...], rust.Module]:
    """The modules of one crate (library or binary), read from the `mod` items of its root file on."""
    modules: dict[tuple[str, ...], rust.Module] = {}
    pending = [((), root_file)]
    while pending:
        path, file = pending.pop()
        text = rust.without_tests(rust.blank(file.read_text()))
        module = modules[path] = rust.Module(path, text)
        for tree in re.findall(r"\bpub(?:\([^)]*\))?\s+use\s+([^;]+);", text):
            for name, target in rust.use_paths(tree):
                whole = rust.absolute(path, target)
                module.names[name] = path + target if whole is None else whole
        folder = source.joinpath(*path)
        for name in re.findall(r"\bmod\s+(\w+)\s*;", text):
            for candidate in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if candidate.is_file():
                    module.children.add(name)
                    pending.append((path + (name,), candidate))
    return modules


def sibling_edges(modules: dict[tuple[str, ...], rust.Module]) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Who needs whom, drawn between siblings: `a::x` naming `b::y` makes `a` need `b`. A child may name its parent."""
    edges: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path, module in modules.items():
        for reference in rust.references(module):
            target = rust.owner(modules, reference)
            shared = 0
            while shared < min(len(path), len(target)) and path[shared] == target[shared]:
                shared += 1
            if shared < len(path) and shared < len(target):
                edges.setdefault(path[: shared + 1], set()).add(target[: shared + 1])
    return edges


def find_cycle(edges: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[tuple[str, ...]] | None:
    done: set[tuple[str, ...]] = set()

    def visit(node: tuple[str, ...], trail: list[tuple[str, ...]]) -> list[tuple[str, ...]] | None:
        if node in trail:
            return trail[trail.index(node) :] + [node]
        if node in done:
            return None
        for following in sorted(edges.get(node, ())):
            if cycle := visit(following, trail + [node]):
                return cycle
        done.add(node)
        return None

    for node in sorted(edges):
        if cycle := visit(node, []):
            return cycle
    return None


def import_cycles(root: Path) -> Iterator[str]:
    for manifest in tracked(root):
        if manifest.name != "Cargo.toml":
            continue
        source = manifest.parent / "src"
        for root_file in (source / "lib.rs", source / "main.rs"):
            if root_file.is_file() and (cycle := find_cycle(sibling_edges(module_tree(source, root_file)))):
                trail = " -> ".join("::".join(m) for m in cycle)
                yield f"{root_file.relative_to(root)}: modules import each other in a circle: {trail}"


def crate_manifests(root: Path) -> Iterator[tuple[Path, dict]]:
    for path in tracked(root):
        if path.name == "Cargo.toml" and path.parent != root and "fuzz" not in path.relative_to(root).parts:
            yield path, tomllib.loads(path.read_text())


def manifests(root: Path) -> Iterator[str]:
    for path, manifest in crate_manifests(root):
        name, crate = path.relative_to(root), manifest["package"]["name"]
        if manifest.get("lints") != {"workspace": True}:
            yield f"{name}: does not say `[lints] workspace = true`"
        for key in ("version", "edition", "license", "rust-version"):
            if manifest["package"].get(key) != {"workspace": True}:
                yield f"{name}: does not take `{key}` from the workspace"
        if crate not in MAY_SEE:
            yield f"{name}: {crate} is not in MAY_SEE of .ci/structure.py: say what it may depend on"
            continue
        for dependency in sorted(manifest.get("dependencies", {})):
            if dependency in MAY_SEE and dependency not in MAY_SEE[crate]:
                yield f"{name}: {crate} must not depend on {dependency}"


def packages_below(metadata: dict, name: str) -> set[str]:
    """Names of all packages below a workspace member, following normal dependencies only."""
    names = {p["id"]: p["name"] for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    pending, seen = [i for i, n in names.items() if n == name], set()
    while pending:
        for dep in nodes[pending.pop()]["deps"]:
            if dep["pkg"] not in seen and any(kind["kind"] is None for kind in dep["dep_kinds"]):
                seen.add(dep["pkg"])
                pending.append(dep["pkg"])
    return {names[i] for i in seen}


def pure_model(root: Path) -> Iterator[str]:
    for path in sources(root):
        if path.relative_to(root).parts[:2] == ("model", "src"):
            for match in IO_PATHS.finditer(rust.without_tests(rust.blank(path.read_text()))):
                yield f"{path.relative_to(root)}: the model does no I/O and reads no clock, but names `{match[0]}`"


def pure_dependencies(metadata: dict) -> Iterator[str]:
    for name in sorted(packages_below(metadata, "weft-model")):
        if IO_CRATES.match(name):
            yield f"weft-model: has the I/O crate {name} below it (cargo tree -p weft-model -i {name})"


def words(root: Path) -> Iterator[str]:
    for path in tracked(root):
        name = path.relative_to(root)
        if vague := {part.removesuffix(".rs") for part in name.parts} & VAGUE_NAMES:
            yield f"{name}: `{vague.pop()}` says nothing; name what it holds"
        if path.suffix not in TEXTS or path.name == "LICENSE":
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := UNWELCOME.search(line):
                yield f"{name}:{number}: `{match[0].strip()}` does not belong here"
        if path.suffix == ".rs":
            if "allow(unsafe_code)" in text and "sys" not in [p.removesuffix(".rs") for p in name.parts]:
                yield f"{name}: unsafe code outside a `sys` module"
            for match in re.finditer(r"#\[ignore(?!\s*=)", text):
                yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: an ignored test without a reason"


TREE_RULES = (lengths, headers, import_cycles, manifests, pure_model, words)


def check(root: Path) -> list[str]:
    complaints = [complaint for rule in TREE_RULES for complaint in rule(root)]
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--quiet"]
    metadata = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if metadata.returncode:
        return [*complaints, f"{' '.join(command)}: {metadata.stderr.strip()}"]
    return [*complaints, *pure_dependencies(json.loads(metadata.stdout))]


GOOD_MANIFEST = """[package]
name = "weft-model"
version.workspace = true
edition.workspace = true
license.workspace = true
rust-version.workspace = true
[lints]
workspace = true
"""

# (what is wrong, files that replace or join a good crate, a part of the complaint it must draw)
VIOLATIONS = [
    ("a long file", {"model/src/lib.rs": "//! x\n" + "pub struct A;\n" * 400}, "lines without tests"),
    ("a long function", {"model/src/lib.rs": '//! x\nfn f(a: [u8; 4]) { "}";\n' + "g();\n" * 80 + "}\n"}, "fn f has 8"),
    ("no header", {"model/src/lib.rs": "pub fn f() {}\n"}, "starts without"),
    (
        "a cycle of modules, one leg through a re-export",
        {
            "model/src/lib.rs": "//! x\nmod a;\nmod b;\npub use a::A;\n",
            "model/src/a.rs": "//! x\nuse super::b::B;\npub struct A;\n",
            "model/src/b.rs": "//! x\npub struct B;\nfn f() -> crate::A { crate::A }\n",
        },
        "a -> b -> a",
    ),
    ("lints not taken over", {"model/Cargo.toml": GOOD_MANIFEST.replace("[lints]", "[other]")}, "[lints]"),
    ("a dependency the wrong way", {"model/Cargo.toml": GOOD_MANIFEST + '[dependencies]\nweft-xds = "1"\n'}, "must not depend"),
    ("a model that reads files", {"model/src/lib.rs": "//! x\nuse std::fs;\n"}, "does no I/O"),
    ("a vague name", {"model/src/utils.rs": "//! x\n"}, "says nothing"),
    ("unfinished work", {"model/src/lib.rs": "//! x\n// TO" "DO\n"}, "does not belong"),
    ("unsafe code", {"model/src/lib.rs": "//! x\n#![allow(unsafe_code)]\n"}, "outside a `sys`"),
    ("an ignored test", {"tests/t.rs": "#[ignore]\nfn f() {}\n"}, "without a reason"),
]

# Looks wrong to a naive reader, and is right: tests do not count, nor brackets and paths in strings and comments.
INNOCENT = """//! x
/* fn f() { */
fn short<'a>(c: &'a str) -> char { let _ = (r#"{ "std::fs" "#, b'"', '\\'', "\\"{"); '{' }
#[cfg(test)]
mod tests {
""" + "fn long() { \n" + "g();\n" * 500 + "}\n}\n"


def complaints_about(files: dict[str, str]) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, text in {"model/Cargo.toml": GOOD_MANIFEST, "model/src/lib.rs": "//! x\n", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        return [complaint for rule in TREE_RULES for complaint in rule(root)]


def self_test() -> list[str]:
    failures = [f"complains about innocent source: {c}" for c in complaints_about({"model/src/lib.rs": INNOCENT})]
    for what, files, expected in VIOLATIONS:
        found = complaints_about(files)
        if not any(expected in complaint for complaint in found):
            failures.append(f"does not catch {what}; complaints: {found}")
    metadata = {
        "packages": [{"id": n, "name": n} for n in ("weft-model", "between", "tokio")],
        "resolve": {
            "nodes": [
                {"id": "weft-model", "deps": [{"pkg": "between", "dep_kinds": [{"kind": None}]}]},
                {"id": "between", "deps": [{"pkg": "tokio", "dep_kinds": [{"kind": None}]}]},
                {"id": "tokio", "deps": []},
            ]
        },
    }
    if not list(pure_dependencies(metadata)):
        failures.append("does not catch an I/O crate below the model")
    return failures


def main() -> int:
    testing = "--self-test" in sys.argv[1:]
    complaints = self_test() if testing else check(Path(__file__).resolve().parent.parent)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"structure{' self-test' if testing else ''}: {'FAILED' if complaints else 'ok'}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
