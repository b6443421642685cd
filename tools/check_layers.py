#!/usr/bin/env python3
"""Fails when a layer reaches where it must not.

Three rules, each of docs/design: dependencies between the crates point one way; the crates below the shell depend on
nothing that brings randomness, clocks or an executor; and their shipped code does not even name the clock, threads,
files or sockets of `std`. Clippy's `disallowed-methods` (clippy.toml) sees calls; this sees imports, types and
Cargo.toml. Code under `#[cfg(test)]` and `rust/*/tests` is not shipped and is not looked at.

Usage: tools/check_layers.py [ROOT]. It prints one line per violation and exits with 1 if there is any.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What each layer may depend on: page <- redo <- proto, control <- store, engine <- runtime <- py; scan needs only page.
_BELOW_SHELL = {"page", "redo", "proto", "control", "store", "scan", "engine"}
ALLOWED: dict[str, set[str]] = {
    "page": set(),
    "redo": {"page"},
    "proto": {"page", "redo"},
    "control": {"page", "redo", "proto"},
    "store": {"page", "redo", "proto", "control"},
    "scan": {"page"},
    "engine": {"page", "redo", "proto", "control", "scan"},
    "runtime": _BELOW_SHELL,
    "sim": _BELOW_SHELL,
    "fuzz": _BELOW_SHELL | {"sim"},
    "py": _BELOW_SHELL | {"runtime"},
}
SHELLS = {"runtime", "py"}

# Crates that bring randomness, a clock, threads or an executor of their own.
BANNED_CRATES = set(
    """
    ahash async-std chrono crossbeam-channel fastrand getrandom jiff mio nanorand num_cpus oorandom quanta rand
    rand_chacha rand_core rayon rustix smol tempfile time tokio uuid
    """.split()
)

# Paths of `std` that code below the shells does not name.
BANNED_PATHS = (
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
)
# What a program's main.rs takes from its caller and gives back, and how it uses the cores; nothing below it may.
ENTRY_PATHS = {"std::env::args", "std::process::ExitCode", "std::thread", "std::time::Instant"}
# A module imported whole hides what is taken from it.
WHOLE_MODULES = {"std", "std::time"}


@dataclass(frozen=True, order=True)
class Violation:
    """One thing that is not allowed, and where it stands."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def layer_of(package: str) -> str:
    """`aurora-page` is the layer `page`."""
    return package.removeprefix("aurora-")


def check_dependencies(packages: Iterable[dict[str, Any]]) -> Iterator[Violation]:
    """Check the edges of `cargo metadata`'s packages: direct dependencies of every kind."""
    for package in packages:
        name = package["name"]
        layer = layer_of(name)
        if layer not in ALLOWED:
            yield Violation(name, "is no layer of tools/check_layers.py: say in ALLOWED what it may use")
            continue
        for dependency in package["dependencies"]:
            target = dependency["name"]
            if target.startswith("aurora-"):
                if layer_of(target) not in ALLOWED[layer]:
                    allowed = ", ".join(sorted(ALLOWED[layer])) or "no other layer"
                    yield Violation(name, f"depends on {target}; it may depend on {allowed}")
            elif target in BANNED_CRATES and layer not in SHELLS and dependency["kind"] != "dev":
                yield Violation(name, f"depends on {target}: time, randomness, threads and disks are handed in")


_TOKEN = re.compile(
    r"""
      //[^\n]*
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)
    | b?"(?:\\.|[^"\\])*"
    | b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\\n])'
    """,
    re.VERBOSE | re.DOTALL,
)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _without_block_comments(source: str) -> str:
    """Blank `/* ... */`, which nest; line comments and strings are already gone."""
    out, depth, i = [], 0, 0
    while i < len(source):
        if source.startswith("/*", i):
            depth += 1
            out.append("  ")
            i += 2
        elif depth and source.startswith("*/", i):
            depth -= 1
            out.append("  ")
            i += 2
        else:
            out.append(source[i] if not depth or source[i] == "\n" else " ")
            i += 1
    return "".join(out)


def code_of(source: str) -> str:
    """Return the source with comments, strings and characters blanked; every line keeps its number."""
    return _without_block_comments(_TOKEN.sub(lambda match: _blank(match.group()), source))


_TEST_ITEM = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*")
_TEST_MODULE_FILE = re.compile(r"(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def _end_of_item(code: str, start: int) -> int:
    """Return the end of the item at `start`: its `;` before any brace, or the brace that closes it."""
    depth = 0
    for i in range(start, len(code)):
        if code[i] == "{":
            depth += 1
        elif code[i] == "}":
            depth -= 1
            if depth == 0:
                return i + 1
        elif code[i] == ";" and depth == 0:
            return i + 1
    return len(code)


def split_tests(code: str) -> tuple[str, set[str]]:
    """Blank what stands under `#[cfg(test)]`; also return the names of modules so declared in files of their own."""
    files: set[str] = set()
    while match := _TEST_ITEM.search(code):
        if module := _TEST_MODULE_FILE.match(code, match.end()):
            files.add(module.group(1))
        end = _end_of_item(code, match.end())
        code = code[: match.start()] + _blank(code[match.start() : end]) + code[end:]
    return code, files


def _use_paths(tree: str, prefix: str = "") -> Iterator[str]:
    """Expand a use tree: `std::{fs, time::{self, Instant}}` names three paths."""
    tree = tree.strip()
    if "{" not in tree:
        path = re.split(r"\s+as\s+", tree)[0].strip()
        full = f"{prefix}{path}"
        yield full.removesuffix("::self").removesuffix("::*").removeprefix("::")
        return
    head, _, rest = tree.partition("{")
    depth, item = 0, ""
    for char in rest[: rest.rindex("}")]:
        if char == "," and depth == 0:
            if item.strip():
                yield from _use_paths(item, prefix + head.strip())
            item = ""
            continue
        depth += (char == "{") - (char == "}")
        item += char
    if item.strip():
        yield from _use_paths(item, prefix + head.strip())


_USE = re.compile(r"\buse\s+([^;]+);")
_INLINE = re.compile(r"(?<![\w:])(?:::)?std(?:\s*::\s*\w+)+")


def paths_of(code: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, path, imported) for every path that begins with `std`."""
    for match in _USE.finditer(code):
        line = code.count("\n", 0, match.start()) + 1
        for path in _use_paths(match.group(1)):
            if path == "std" or path.startswith("std::"):
                yield line, path, True
    inline = _USE.sub(lambda match: _blank(match.group()), code)
    for match in _INLINE.finditer(inline):
        yield inline.count("\n", 0, match.start()) + 1, re.sub(r"\s", "", match.group()).removeprefix("::"), False


def check_source(code: str, where: str) -> Iterator[Violation]:
    """Check code that `code_of` and `split_tests` have prepared."""
    entry = where.endswith("/src/main.rs")
    for line, path, imported in paths_of(code):
        if entry and any(path == allowed or path.startswith(f"{allowed}::") for allowed in ENTRY_PATHS):
            continue
        banned = next((b for b in BANNED_PATHS if path == b or path.startswith(f"{b}::")), None)
        if banned:
            yield Violation(f"{where}:{line}", f"names {path}: only rust/runtime and rust/py touch {banned}")
        elif imported and path in WHOLE_MODULES:
            yield Violation(f"{where}:{line}", f"imports all of {path}: name the items that are meant")


def shipped_sources(source_dir: Path) -> Iterator[tuple[Path, str]]:
    """Yield the prepared code of each file of a crate, less the files that are test modules."""
    prepared: dict[Path, str] = {}
    tests: set[Path] = set()
    for path in sorted(source_dir.rglob("*.rs")):
        code, modules = split_tests(code_of(path.read_text(encoding="utf-8")))
        prepared[path] = code
        folder = path.parent if path.stem in {"lib", "main", "mod"} else path.with_suffix("")
        for module in modules:
            tests |= {folder / f"{module}.rs", folder / module}
    for path, code in prepared.items():
        if not any(path == test or test in path.parents for test in tests):
            yield path, code


def check(root: Path) -> list[Violation]:
    """Check a whole workspace."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--manifest-path", str(root / "Cargo.toml")]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["packages"]
    violations = list(check_dependencies(packages))
    for package in packages:
        if layer_of(package["name"]) in SHELLS:
            continue
        for path, code in shipped_sources(Path(package["manifest_path"]).parent / "src"):
            violations += check_source(code, str(path.relative_to(root.resolve())))
    return sorted(violations)


def main() -> int:
    """Check the workspace of the first argument, else the one this file lies in."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    violations = check(root.resolve())
    for violation in violations:
        print(violation)
    print(f"layers: {len(violations)} violation(s)" if violations else "layers: dependencies point one way")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
