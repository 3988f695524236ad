"""What import-linter (pyproject.toml) does not see: packages are imported as wholes, and no message names an option."""

import ast
import functools
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "phantom_jax").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
ROOMS = {f"phantom_jax.{path.parent.name}" for path in (ROOT / "phantom_jax").glob("*/__init__.py")}
# Rooms inside rooms, which others import by their own names.
DOORS = {*ROOMS, "phantom_jax.tracing.onnx", "phantom_jax.training.data", "phantom_jax.training.networks"}


def name_of(path: pathlib.Path) -> str:
    """Returns a module's full name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: pathlib.Path) -> Iterator[str]:
    """Yields the full names of what a file imports: the package where it exports the name, else the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: an import without the full name"
            for alias in node.names:
                yield node.module if alias.name in exported(node.module) else f"{node.module}.{alias.name}"


@functools.cache
def exported(name: str) -> set[str]:
    """Returns the names that a package of the project imports or defines, and those of a module."""
    path = ROOT.joinpath(*name.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = set()
    for node in ast.parse(source.read_text()).body if source.exists() else ():
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def messages(path: pathlib.Path) -> Iterator[str]:
    """Yields the strings of a file, docstrings excepted."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_others_import_a_package_and_never_its_inside() -> None:
    found = set()
    for path in (*LIBRARY, *EXPERIMENTS):
        importer = name_of(path)
        for imported in imports(path):
            room = ".".join(imported.split(".")[:2])
            if room in ROOMS and not f"{importer}.".startswith(f"{room}.") and imported not in DOORS:
                found.add(f"{importer} -> {imported}")
    assert found == set(), "the package can export what is needed"


def test_the_library_names_no_option_of_a_command() -> None:
    groups = "|".join(folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir())
    option = re.compile(rf"(?<![\w.])(?:{groups}|phases)\.(?!npz|json)[a-z_]+")
    found = {f"{name_of(path)}: {text}" for path in LIBRARY for text in messages(path) if option.search(text)}
    assert found == set(), "messages of the library name arguments, and experiments put the group before them"
