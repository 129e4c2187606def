"""The house: which part of the package may import which, and how large its rooms are."""

import ast
import functools
import graphlib
import operator
import re
import tokenize
from pathlib import Path

import pytest

import framepred
from framepred.models import NETWORKS

PACKAGE = Path(framepred.__file__).parent
# From the ground up: a part imports what stands before it, and nothing that comes after.
CORE = ("files", "precision", "metrics", "data", "models", "baselines", "runs", "training", "evaluation")
ABOVE = ("players", "exercises", "benchmark", "analysis")
STOREYS = (*CORE, *ABOVE)
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def part(module):
    """The part that a module belongs to: "models" for "models.layers.warp"."""
    return module.split(".")[0]


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def private_functions(path):
    """The names of the functions, methods and classes of a module that begin with an underscore."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(parsed(path)) if isinstance(node, kinds) and re.match("_[a-z]", node.name)}


def imports(path):
    """The modules of this package that a file imports, with the names: ("models.base", "FramePredictor")."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here, so that these tests see them"
        if isinstance(node, ast.ImportFrom) and node.module and part(node.module) == "framepred":
            for alias in node.names:
                yield node.module.removeprefix("framepred").removeprefix("."), alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if part(alias.name) == "framepred":
                    yield alias.name.removeprefix("framepred").removeprefix("."), ""


def named_by(package):
    """Which module of a package has a name that the package passes on: {"build": "models.presets"}."""
    stub = PACKAGE / package.replace(".", "/") / "__init__.pyi"
    lists = ast.parse(stub.read_text(encoding="utf-8")).body if stub.exists() else []  # else it is imported as a whole
    lists_of_names = [node for node in lists if isinstance(node, ast.ImportFrom)]
    return {
        name.name: ".".join(filter(None, (package, node.module, "" if node.module else name.name)))
        for node in lists_of_names
        for name in node.names
    }


def code_lines(path):
    """The lines of a file that hold code: neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    lines = set()
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type not in nothing:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def test_every_module_has_its_place():
    assert {part(module) for module in MODULES} == {*STOREYS, "__init__"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_point_downwards(module):
    up = []
    for imported, name in imports(MODULES[module]):
        to = part(imported) if imported else name
        if to == "__version__":
            continue
        if STOREYS.index(to) > STOREYS.index(part(module)):
            up.append(f"{module} imports {imported}.{name}")
    assert not up


def test_no_modules_import_one_another_in_a_circle():
    graph = {}
    for module, path in MODULES.items():
        found = graph.setdefault(module.removesuffix(".__init__"), set())
        for imported, name in imports(path):
            if f"{imported}.{name}" in MODULES:
                found.add(f"{imported}.{name}")
            else:
                found.add(imported if imported in MODULES else named_by(imported).get(name, imported))
    assert "models.presets" in graph["runs.loading"] and "training.config" in graph["training.schedule"]
    assert "players.frame_player" in graph["players"]
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", list(MODULES))
def test_private_names_stay_in_their_package(module):
    folder = module.rpartition(".")[0]
    taken = [
        f"{imported}.{name}"
        for imported, name in imports(MODULES[module])
        if ((name.startswith("_") and name != "__version__") or "._" in imported)
        and not imported.startswith(folder or "-")
    ]
    assert not taken
    # And attributes: what is private is asked of self and cls, or in the module that makes it.
    others = {name for other, path in MODULES.items() if other != module for name in private_functions(path)}
    asked = {
        node.attr
        for node in ast.walk(parsed(MODULES[module]))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()")
    }
    assert not (asked & others) - private_functions(MODULES[module])


@pytest.mark.parametrize("stub", sorted(PACKAGE.rglob("__init__.pyi")), ids=lambda path: path.parent.name)
def test_a_list_of_names_has_every_module_of_its_folder(stub):
    folder = stub.parent
    there = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    listed = {
        alias.name
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and not node.module
        for alias in node.names
    }
    assert listed == there - {"__init__"}


def test_the_core_can_be_read_through():
    thesis = {"convlstm", "spatiotemporal", "vpn"}
    later = {cls.__module__.removeprefix("framepred.") for name, cls in NETWORKS.items() if name not in thesis}
    core = [path for module, path in MODULES.items() if part(module) in CORE and module not in later]
    assert sum(len(code_lines(path)) for path in core) <= 3000, "what a student reads through has grown too long"


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in CORE])
def test_rooms_of_the_core_are_small(module):
    path = MODULES[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    code = code_lines(path)
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if len(code & set(range(f.lineno, f.end_lineno + 1))) > 60] == []


def test_the_picture_in_contributing_is_true():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"^```\n(analysis/.*?)```", text, re.MULTILINE | re.DOTALL)
    assert drawn
    above, core = (part.splitlines() for part in drawn[1].split("-- the core ", 1))
    rows = {}
    for row in (*above, *core[1:]):
        name, *modules = row.split()
        rows[name.removesuffix(".py").removesuffix("/")] = {module.removesuffix("/") for module in modules}
    assert list(rows) == list(reversed(STOREYS))
    for name, modules in rows.items():
        inside = {module.split(".")[1] for module in MODULES if module.startswith(f"{name}.")}
        there = {module for module in inside if not module.startswith("_")}
        assert modules == there, f"the picture in CONTRIBUTING.md does not show {name}/ as it is"


def test_what_contributing_points_at_is_there():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:[a-z_.]+/)*[a-z_.]+\.(?:pyi?|csv|md|toml))`", text)
    assert len(paths) > 15
    assert [path for path in paths if not ((PACKAGE / path).exists() or (PACKAGE.parent / path).exists())] == []


def test_caches_of_the_workflows_depend_on_files_that_there_are():
    root = PACKAGE.parent
    hashed = [
        n
        for p in (root / ".github").rglob("*.yml")
        for n in re.findall(r"hashFiles\('([^']+)'\)", p.read_text("utf-8"))
    ]
    assert hashed and all((root / name).exists() for name in hashed)


def test_no_two_functions_of_one_name_do_two_things():
    homes = {}
    for module, path in MODULES.items():
        for node in parsed(path).body:
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef) and part(module) != "exercises"
            ):  # which imitate the rest
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_names_that_docstrings_and_pages_mention_exist():
    root = PACKAGE.parent
    texts = [*MODULES.values(), root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "book").rglob("*.md"))]
    unknown, known = [], 0
    for path in texts:
        for name in re.findall(r"`(?:fp|framepred)((?:\.\w+)+)", path.read_text(encoding="utf-8")):
            try:
                operator.attrgetter(name[1:])(framepred)
                known += 1
            except AttributeError:
                unknown.append(f"{path.relative_to(root)}: {name[1:]}")
    assert known > 40 and not unknown
