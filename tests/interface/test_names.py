"""What `import hubsplice` offers, how quick it is, and where it is described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hubsplice
from tests.interface.conftest import REPOSITORY

NAMES = [name for name in hubsplice.__all__ if name != "__version__"]


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return done.stdout.strip()


def test_the_import_loads_nothing() -> None:
    code = (
        "import hubsplice, sys; print(sorted(n for n in sys.modules if 'hubsplice' in n), end=' ')"
    )
    code += "; print(*{'torch', 'transformers', 'pydantic', 'rich'} & {*sys.modules})"
    assert fresh(code) == "['hubsplice']"


def test_errors_and_dir_load_no_torch() -> None:
    code = "import hubsplice, sys; dir(hubsplice); hubsplice.HubspliceError, hubsplice.HubError"
    assert fresh(f"{code}; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_has_a_docstring(name: str) -> None:
    value = getattr(hubsplice, name)
    assert value.__name__ == name
    assert name in dir(hubsplice)
    assert value.__doc__


def test_a_function_is_no_module_after_everything_was_imported() -> None:
    code = "import hubsplice.cli, hubsplice.verifying, hubsplice.hub.publish, hubsplice; "
    code += (
        "print([n for n in hubsplice.__all__ if type(getattr(hubsplice, n)).__name__ == 'module'])"
    )
    assert fresh(code) == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = hubsplice.biuld


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    text = Path(hubsplice.__file__).read_text(encoding="utf-8")
    block = text[text.index("if TYPE_CHECKING:") : text.index("__version__ =")]
    seen = {
        name.strip(): module
        for module, names in re.findall(
            r"from hubsplice\.([\w.]+) import \(?([^)\n]*[^)]*?)\)?\n(?=    from|\n)", block
        )
        for name in names.split(",")
        if name.strip()
    }
    assert seen == hubsplice._PLACES
    assert sorted(seen) == NAMES


def test_every_name_is_on_the_page() -> None:
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: hubsplice\.(\w+)$", page, re.M)
    assert sorted(shown) == NAMES


@pytest.mark.parametrize("name", [n for n in NAMES if n[0].islower()])
def test_every_argument_is_described(name: str) -> None:
    function = getattr(hubsplice, name)
    code = function.__wrapped__.__code__ if hasattr(function, "__wrapped__") else function.__code__
    described = re.findall(r"^ {8}(\w+): ", function.__doc__.split("Args:")[1], re.M)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    assert described[: len(arguments)] == list(arguments)
    assert "Raises:" in function.__doc__
