#!/usr/bin/env python3
"""Fails where the structure of the code is not as it should be: import cycles, lines over 110 columns,
source files with over 500 lines of code.

    corro/tests/structure.py [FOLDER...]     cycles with a module below one of the folders; without any, all

Within each module, the modules that it contains must have an order in which each imports only from those
before it; an import counts for all modules from the file that has it up to the one that contains both ends.
An import is a path that begins with `crate`, `super`, `self` or a module declared in the file, in a `use` or
anywhere else in the code. A `pub use` is followed to where it leads. A file is a part of the modules that
contain it, so what it uses of these is no import; nor is what only tests use. A path that a macro puts
together is not seen.

Lines of code are those of `*/src` without comments, blank lines and tests.

Each run first checks itself on small crates with and without a cycle.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

CRATES = ["protocol", "protocol/process", "gateway", "db-process", "corro"]
DEFINITION = re.compile(
    r"\b(?:fn|struct|enum|union|trait|impl|const|static|type|macro_rules!)\b|\bmacro_rules!"
)
PATH = re.compile(r"(?<![\w:$])((?:r#)?[a-z_]\w*(?:\s*::\s*\w+)+)")
USE = re.compile(r"(?:(\bpub(?:\s*\([^)]*\))?)\s+)?\buse\s+([^;]+);")
WIDTH = 110
LINES = 500
MOD = re.compile(r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\s*\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;")


def code_of(text):
    """The text without comments, literals, and what is compiled for tests only."""
    token = re.compile(
        r"""//[^\n]*|/\*.*?\*/|b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\\n])'""", re.S
    )
    text = token.sub(lambda match: " " if match[0].startswith("/") else '""', text)
    while match := re.search(r"#\[cfg\((?:test|all\(test)[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*[^{;]*([{;])", text):
        end = match.end()
        if match[1] == "{":
            depth = 1
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: match.start()] + text[end:]
    return text


def leaves(tree, prefix=()):
    """All paths of a `use` tree, each with the name that it gets."""
    tree = tree.strip()
    if tree.endswith("}"):
        head, inner = tree[:-1].split("{", 1)
        prefix += tuple(part for part in re.split(r"\s*::\s*", head.strip()) if part)
        depth, part = 0, ""
        for character in inner + ",":
            depth += {"{": 1, "}": -1}.get(character, 0)
            if character == "," and depth == 0:
                if part.strip():
                    yield from leaves(part, prefix)
                part = ""
            else:
                part += character
        return
    tree, _, name = tree.partition(" as ")
    path = prefix + tuple(part for part in re.split(r"\s*::\s*", tree.strip()) if part)
    if path[-1] == "self":
        path = path[:-1]
    yield path, name.strip() or path[-1]


class File:
    def __init__(self, path, module, code):
        self.path, self.module, self.code = path, module, code
        self.children = {name for _, name in MOD.findall(code)}
        self.exports, self.paths = {}, []
        facade = not DEFINITION.search(USE.sub("", code))
        for public, tree in USE.findall(code):
            for path, name in leaves(tree):
                if public:
                    self.exports[name] = path
                if not (public and facade):
                    self.paths.append(path)
        for match in PATH.findall(USE.sub("", code)):
            self.paths.append(tuple(re.split(r"\s*::\s*", match)))

    def absolute(self, path):
        """The path from the root of the crate; `None` where it leads out of it."""
        at = self.module
        if path[0] == "crate":
            return path[1:]
        if path[0] in self.children:
            return at + path
        if path[0] not in ("self", "super"):
            return None
        while path and path[0] in ("self", "super"):
            at = at[:-1] if path[0] == "super" else at
            path = path[1:]
        return at + path


def files_of(source):
    files = {}
    for path in sorted(source.rglob("*.rs")):
        parts = path.relative_to(source).with_suffix("").parts
        if parts[-1] == "mod" or parts in (("lib",), ("main",)):
            parts = parts[:-1]
        code = code_of(path.read_text())
        # A crate that is a library and a command has two roots.
        key = parts if parts not in files else parts + (path.stem,)
        files[key] = File(path, parts, code)
    declared = lambda parts: not parts or (
        (above := files.get(parts[:-1])) and parts[-1] in above.children and declared(parts[:-1])
    )
    # What no file declares is compiled for tests only.
    return {parts: file for parts, file in files.items() if declared(parts) or parts[-1] in ("lib", "main")}


def imported(files, path, seen=()):
    """The module that defines what the path names."""
    length = max((n for n in range(len(path) + 1) if path[:n] in files), default=0)
    module, rest = path[:length], path[length:]
    export = rest and files[module].exports.get(rest[0])
    if export and (module, rest) not in seen:
        further = files[module].absolute(export)
        if further is not None:
            return imported(files, further + rest[1:], seen + ((module, rest),))
    return module


def imports_of(files):
    """From each module to the modules beside it that it imports, with the imports: file, file, name."""
    graph = {module[:n]: {} for module in files for n in range(1, len(module) + 1)}
    for module, file in files.items():
        for path in file.paths:
            if (path := file.absolute(path)) is None:
                continue
            to = imported(files, path)
            common = next((n for n, (a, b) in enumerate(zip(module, to)) if a != b), None)
            if common is not None:
                edge = (str(file.path), str(files[to].path), "::".join(path))
                graph[module[: common + 1]].setdefault(to[: common + 1], set()).add(edge)
    return graph


def cycles_of(graph):
    """The strongly connected components of more than one module (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for to in graph[module]:
            if to not in index:
                visit(to)
            if to in stack:
                low[module] = min(low[module], low[to])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in index:
            visit(module)
    return found


def lines_of_code(files):
    """Of each file of a crate; literals and comments of many lines count as one line at most."""
    return {file.path: sum(bool(line.strip()) for line in file.code.splitlines()) for file in files.values()}


def wide_lines(root):
    """Lines of all tracked texts but licences, data and pictures."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if not re.search(r"(^|/)(LICENSE|Cargo\.lock|golden[^/]*)(/|$)|\.(json|svg|png|txt)$", name):
            for number, line in enumerate((root / name).read_text().splitlines(), 1):
                if len(line) > WIDTH:
                    yield f"{name}:{number}: {len(line)} columns"


def check(root, crates, folders):
    """Prints what is wrong; returns how much that is, and the lines of code of each file."""
    count, lines = 0, {}
    for crate in crates:
        files = files_of(root / crate / "src")
        lines |= lines_of_code(files)
        graph = imports_of(files)
        for cycle in cycles_of(graph):
            edges = [edge for a in cycle for b in cycle for edge in sorted(graph[a].get(b, ()))]
            ends = [Path(end).relative_to(root) for edge in edges for end in edge[:2]]
            if folders and not any(end.is_relative_to(folder) for end in ends for folder in folders):
                continue
            count += 1
            print(f"{crate}: a cycle of {', '.join('::'.join(module) for module in cycle)}")
            for a, b, name in edges:
                print(f"  {Path(a).relative_to(root)} -> {Path(b).relative_to(root)}: {name}")
    return count, lines


def check_itself():
    base = {
        "lib.rs": "pub mod a;\npub mod b;\n",
        "a/mod.rs": "//! use crate::b::B;\nmod one;\nmod two;\npub use one::One;\npub use two::Two;\n",
        "a/one.rs": 'pub struct One;\nconst TEXT: &str = "crate::b::B";\n',
        "a/two.rs": "use super::One;\npub struct Two(One);\n",
        "b.rs": "use crate::a::{self, Two};\npub struct B(Two);\n"
        "#[cfg(test)]\nmod tests { use crate::c::C; }\n",
    }
    planted = [
        {"a/one.rs": "use crate::b::B;\npub struct One(B);\n"},
        {"a/one.rs": "pub struct One;\nfn f(_: crate::b::B) {}\n"},
        {"a/one.rs": "pub struct One(super::two::Two);\n"},
        {"a/one.rs": "pub use super::super::{b::{B as Other}};\npub struct One;\n"},
        {"a/three.rs": "pub struct Three(crate::b::B);\n", "a/mod.rs": "pub mod three;\n" + base["a/mod.rs"]},
    ]
    allowed = [
        {},
        {
            "a/mod.rs": base["a/mod.rs"] + "pub struct A(One);\n",
            "a/one.rs": "pub struct One(Box<super::A>);\n",
        },
    ]
    for change in allowed + planted:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "crate/src"
            for name, text in (base | change).items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(text)
            graph = imports_of(files_of(source))
            assert bool(cycles_of(graph)) == (change in planted), f"{change}: {graph}"


def main():
    check_itself()
    root = Path(__file__).resolve().parents[2]
    folders = [Path(folder) for folder in sys.argv[1:]]
    for folder in folders:
        assert (root / folder).is_dir(), f"{folder} is no folder of this repository"
    count, lines = check(root, CRATES, folders)
    assert len(lines) > 100, f"only {len(lines)} files were found"
    large = [f"{path.relative_to(root)}: {n} lines of code" for path, n in lines.items() if n > LINES]
    wide = list(wide_lines(root))
    print(
        *large, *wide, f"{len(lines)} files, {sum(lines.values()):,} lines of code, {count} cycles", sep="\n"
    )
    sys.exit(bool(count or large or wide))


main()
