"""Modules import only from the layers below their own, imports in functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "zoo"

#: The modules and packages of zoo/, bottom first. A module may import from the lines above its
#: own and, within a package, from its siblings. No two modules may import each other.
LAYERS = [
    ["errors"],
    ["chunks", "inputs"],
    ["stores"],
    ["atomic", "extras", "memory", "ops", "options", "progress", "published", "tables", "warping"],
    ["convolutions", "extrapolation"],
    ["config", "fetching"],
    ["model_folder", "units"],
    ["known_inputs", "labeled"],
    ["prediction"],
    ["cell", "topology", "head"],
    ["network"],
    ["forecast"],
    ["optimize"],
    ["plugins"],
    ["openstl"],
    ["builtin", "registry", "weights"],
    ["convert"],
    ["hub"],
    ["data", "losses", "scores"],
    ["metrics"],
    ["baselines", "protocol"],
    ["baseline_cache"],
    ["evaluate"],
    ["inspect", "bench", "exporting", "verify"],
    ["site", "train"],
    ["testing", "check", "scaffold"],
    ["cli"],
    ["__main__"],
]

#: Imports that break the order for now: (module, imported module).
EXCEPTIONS: set[tuple[str, str]] = set()

#: The public names in zoo/__init__.py are imported on demand; what it imports at once are these.
ROOT = {"errors", "plugins"}

Imports = dict[str, dict[str, int]]  # by module, the line of each import


def parse(package: Path) -> Imports:
    """The imports between the modules of a package. Names are relative to it; "" is its root."""
    paths = {}
    for path in package.rglob("*.py"):
        *parents, name = path.relative_to(package).with_suffix("").parts
        if "template" not in parents:
            paths[".".join(parents if name == "__init__" else [*parents, name])] = path
    imports: Imports = {module: {} for module in paths}
    for module, path in paths.items():
        for name, line in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            package_name, _, imported = name.partition(".")
            while imported and imported not in paths:  # a name in a module
                imported = imported.rpartition(".")[0]
            if package_name == package.name and imported not in ("", module):
                imports[module].setdefault(imported, line)
    return imports


def imported_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    """The dotted names that code imports and their lines, except those for type checkers only."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported_names(child)


def wrong_way(imports: Imports) -> list[str]:
    """The imports that run up or sideways."""
    height = {name: number for number, names in enumerate(LAYERS) for name in names}
    problems = []
    for module, targets in imports.items():
        room = module.partition(".")[0]
        for target, line in targets.items():
            other = target.partition(".")[0]
            below = other in ROOT if not room else height[other] < height[room]
            allowed = below or other == room
            if not allowed and (module, target) not in EXCEPTIONS:
                problems.append(f"zoo/{module or '__init__'}, line {line}: imports zoo.{target}")
    return problems


def cycle(imports: Imports) -> list[str]:
    """The modules of one cycle of imports; [] if there is none."""
    finished: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for target in imports[module]:
            if found := search(target, [*path, module]):
                return found
        finished.add(module)
        return []

    return next(filter(None, (search(module, []) for module in imports)), [])


@pytest.fixture(scope="module")
def imports() -> Imports:
    return parse(PACKAGE)


def test_every_module_has_a_layer(imports: Imports) -> None:
    rooms = {module.partition(".")[0] for module in imports} - {""}
    assert rooms == {name for names in LAYERS for name in names}


def test_imports_run_one_way(imports: Imports) -> None:
    problems = wrong_way(imports)
    assert not problems, "\n".join(["not from a lower layer (see LAYERS):", *problems])


def test_no_import_cycle(imports: Imports) -> None:
    found = cycle(imports)
    assert not found, f"import cycle: {' -> '.join(found)}"


def test_exceptions_are_still_needed(imports: Imports) -> None:
    used = {(module, target) for module in imports for target in imports[module]}
    assert used >= EXCEPTIONS


def test_imports_in_functions_count(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "errors.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from zoo.cli import main\n"
        "def f():\n"
        "    from zoo.hub import pull\n"
    )
    (tmp_path / "zoo" / "hub.py").write_text("import zoo.errors")
    (tmp_path / "zoo" / "cli.py").write_text("")
    imports = parse(tmp_path / "zoo")
    assert wrong_way(imports) == ["zoo/errors, line 5: imports zoo.hub"]
    assert set(cycle(imports)) == {"errors", "hub"}
