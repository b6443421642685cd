"""tools/check_layers.py: a check that cannot fail is worth nothing, so each rule is shown a planted violation."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools import check_layers

ROOT = Path(__file__).resolve().parents[1]


def violations_in(source: str) -> list[str]:
    code, _ = check_layers.split_tests(check_layers.code_of(source))
    return [violation.what for violation in check_layers.check_source(code, "x.rs")]


def package(name: str, *dependencies: str, kind: str | None = None) -> dict:
    return {"name": name, "dependencies": [{"name": d, "kind": kind} for d in dependencies]}


def dependency_violations(*packages: dict) -> list[str]:
    return [str(violation) for violation in check_layers.check_dependencies(packages)]


def test_the_workspace_is_clean():
    assert check_layers.check(ROOT) == []


def test_every_crate_of_the_workspace_has_a_rule():
    crates = {folder.parent.name for folder in (ROOT / "rust").glob("*/Cargo.toml")}
    assert crates == set(check_layers.ALLOWED)


def test_the_allowed_edges_have_no_cycle():
    below: dict[str, set[str]] = {}

    def reach(layer: str, path: tuple[str, ...]) -> set[str]:
        assert layer not in path, f"cycle: {(*path, layer)}"
        if layer not in below:
            below[layer] = set().union(*(reach(d, (*path, layer)) | {d} for d in check_layers.ALLOWED[layer]))
        return below[layer]

    for layer in check_layers.ALLOWED:
        reach(layer, ())


@pytest.mark.parametrize(
    ("crate", "dependency"),
    [
        ("aurora-page", "aurora-redo"),
        ("aurora-proto", "aurora-store"),
        ("aurora-engine", "aurora-runtime"),
        ("aurora-scan", "aurora-redo"),
        ("aurora-runtime", "aurora-py"),
        ("aurora-py", "aurora-sim"),
    ],
)
def test_an_edge_upwards_is_found(crate, dependency):
    assert f"{crate}: depends on {dependency}" in dependency_violations(package(crate, dependency))[0]


def test_an_edge_upwards_is_found_among_test_dependencies():
    assert dependency_violations(package("aurora-page", "aurora-engine", kind="dev"))


@pytest.mark.parametrize("crate", ["rand", "getrandom", "fastrand", "tokio", "rayon", "chrono"])
def test_a_crate_of_randomness_or_threads_is_found_below_the_shell(crate):
    assert dependency_violations(package("aurora-engine", crate))
    assert not dependency_violations(package("aurora-runtime", crate))
    assert not dependency_violations(package("aurora-engine", crate, kind="dev"))


def test_an_unknown_crate_is_found():
    assert "is no layer" in dependency_violations(package("aurora-misc"))[0]


@pytest.mark.parametrize(
    "source",
    [
        "use std::time::Instant;",
        "use std::time::{Duration, Instant as Clock};",
        "use std::{fmt, thread};",
        "use std::{collections::BTreeMap, fs::{self, File}};",
        "use ::std::net::TcpStream;",
        "fn f() { let t = std::time::SystemTime::now(); }",
        "fn f() { std::thread::spawn(|| ()); }",
        'fn f() { ::std::fs::read("x"); }',
        "use std::time;",
        "use std::time::*;",
        "use std::time::{self, Duration};",
        "use std::env;",
        "use std as s;",
        "/* a /* nested */ comment */ use std::fs::File;",
        "#[cfg(test)] mod tests { } use std::fs::File;",
        "#[cfg(not(test))] use std::fs::File;",
        "const OPEN: char = '{'; use std::fs::File;",
    ],
)
def test_a_banned_path_is_found(source):
    assert violations_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "use std::time::Duration;",
        "use std::{fmt, io, sync::Arc};",
        "// use std::fs::File;",
        "//! reads `std::fs` through the trait",
        "/* std::thread */",
        'const S: &str = "std::thread::spawn";',
        'const S: &str = r#"std::fs " std::net"#;',
        "#[cfg(test)]\nmod tests { use std::fs; fn f() { std::thread::spawn(|| {}); } }",
        "#[cfg(test)]\nuse std::fs::File;",
        "use crate::std::fs::File;",
        "fn f<'a>(x: &'a str) -> &'a str { x }",
    ],
)
def test_what_is_allowed_passes(source):
    assert violations_in(source) == []


def test_a_program_takes_arguments_in_its_main_file_only():
    source = "use std::process::ExitCode;\nfn main() -> ExitCode { run(std::env::args()); ExitCode::SUCCESS }\n"
    assert list(check_layers.check_source(source, "rust/sim/src/main.rs")) == []
    assert len(list(check_layers.check_source(source, "rust/sim/src/world.rs"))) == 2
    assert list(check_layers.check_source("use std::process::abort;", "rust/sim/src/main.rs"))


def test_lines_are_counted_as_in_the_file():
    code = check_layers.code_of('/* one\ntwo */\n"three\nfour"\nuse std::fs;\n')
    assert next(str(v) for v in check_layers.check_source(code, "x.rs")).startswith("x.rs:5: names std::fs")


def plant(root: Path, lib: str, dependencies: str = "") -> None:
    """Write a workspace of one crate, `aurora-page`."""
    (root / "rust/page/src/deep").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "3"\nmembers = ["rust/*"]\n')
    manifest = f'[package]\nname = "aurora-page"\nversion = "0.1.0"\nedition = "2024"\n[dependencies]\n{dependencies}\n'
    (root / "rust/page/Cargo.toml").write_text(manifest)
    (root / "rust/page/src/lib.rs").write_text(lib)


def run_on(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools/check_layers.py", root], capture_output=True, text=True, check=False
    )


def test_the_command_fails_on_a_planted_clock(tmp_path):
    plant(tmp_path, "mod clock;\n")
    (tmp_path / "rust/page/src/clock.rs").write_text("pub fn now() -> std::time::Instant { todo!() }\n")
    result = run_on(tmp_path)
    assert result.returncode == 1
    assert "rust/page/src/clock.rs:1: names std::time::Instant" in result.stdout


def test_the_command_fails_on_a_planted_dependency(tmp_path):
    plant(tmp_path, "", 'rand = "0.9"')
    result = run_on(tmp_path)
    assert result.returncode == 1
    assert "aurora-page: depends on rand" in result.stdout


def test_a_test_module_in_a_file_of_its_own_is_not_shipped(tmp_path):
    plant(tmp_path, "mod deep;\n#[cfg(test)]\nmod tests;\n")
    (tmp_path / "rust/page/src/tests.rs").write_text("use std::fs;\n")
    (tmp_path / "rust/page/src/deep.rs").write_text("#[cfg(test)]\nmod checks;\n")
    (tmp_path / "rust/page/src/deep/checks.rs").write_text("use std::thread;\n")
    result = run_on(tmp_path)
    assert result.returncode == 0, result.stdout


def test_clippy_names_each_banned_call_with_its_replacement():
    methods = tomllib.loads((ROOT / "clippy.toml").read_text())["disallowed-methods"]
    banned = {method["path"] for method in methods}
    assert {
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::thread::spawn",
        "std::thread::sleep",
    } <= banned
    assert all(method["reason"] for method in methods)
    for shell in check_layers.SHELLS:
        assert "disallowed-methods" not in tomllib.loads((ROOT / f"rust/{shell}/clippy.toml").read_text())


@pytest.mark.parametrize(
    "call",
    [
        "std::time::Instant::now()",
        "std::thread::sleep(std::time::Duration::from_secs(1))",
        "std::thread::spawn(|| ())",
        'std::env::var("SEED")',
        "std::collections::HashMap::<u8, u8>::new()",
        'std::fs::File::open("x")',
    ],
)
def test_clippy_fails_on_a_planted_call(tmp_path, call):
    plant(tmp_path, f"pub fn planted() {{ let _ = {call}; }}\n")
    environment = {**os.environ, "CLIPPY_CONF_DIR": str(ROOT), "CARGO_TARGET_DIR": str(tmp_path / "target")}
    command = ["cargo", "clippy", "--quiet", "--offline", "--", "-D", "warnings"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "use of a disallowed method" in result.stderr
