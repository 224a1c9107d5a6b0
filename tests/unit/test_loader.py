"""From ``-A module:app`` to the app."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor import TaskHarbor
from taskharbor.errors import ConfigurationError
from taskharbor.loader import load_app

APP = "from taskharbor import TaskHarbor\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to run from, with nothing left of its modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_modules_only_app_needs_no_name(project: Path) -> None:
    (project / "shop.py").write_text(APP + "harbor = TaskHarbor(name='shop')\nalias = harbor\n")
    assert load_app("shop").name == "shop"
    assert load_app("shop:harbor").name == "shop"


def test_an_app_in_a_package_or_an_attribute_is_found(project: Path) -> None:
    (project / "pkg").mkdir()
    (project / "pkg" / "__init__.py").touch()
    (project / "pkg" / "tasks.py").write_text(
        APP + "class Config:\n    app = TaskHarbor(name='deep')\n"
    )
    assert load_app("pkg.tasks:Config.app").name == "deep"


def test_of_several_apps_the_one_called_app_is_taken(project: Path) -> None:
    (project / "two.py").write_text(APP + "app = TaskHarbor(name='a')\nb = TaskHarbor(name='b')\n")
    assert load_app("two").name == "a"
    assert load_app("two:b").name == "b"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing_here", "no module 'nothing_here'"),
        ("json.nothing_here", "no module 'json.nothing_here'"),
        ("plain", "has no TaskHarbor app; create one"),
        ("plain:value", "plain:value is 3, not a TaskHarbor app"),
        ("plain:absent", "plain:absent is None"),
        ("several", r"2 apps \(one, two\); name one: -A several:one"),
        ("plain.py", "named like a file; name the module that holds it: -A plain"),
        ("shop/tasks.py", "-A shop.tasks"),
        ("", "package.module"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(project: Path, path: str, says: str) -> None:
    (project / "plain.py").write_text("value = 3\n")
    (project / "several.py").write_text(APP + "one = TaskHarbor()\ntwo = TaskHarbor()\n")
    with pytest.raises(ConfigurationError, match=says):
        load_app(path)


def test_errors_of_the_module_itself_pass_through(project: Path) -> None:
    (project / "broken.py").write_text("import not_installed_here\n")
    (project / "worse.py").write_text("1 / 0\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        load_app("broken")
    with pytest.raises(ZeroDivisionError):
        load_app("worse")


def test_a_script_run_as_main_names_tasks_as_a_worker_would_import_them(project: Path) -> None:
    import subprocess

    (project / "script.py").write_text(
        APP
        + "app = TaskHarbor('memory://')\n@app.task\ndef add(): ...\n"
        + "if __name__ == '__main__': print(add.name)\n"
    )
    (project / "pkg").mkdir()
    (project / "pkg" / "__init__.py").touch()
    (project / "pkg" / "__main__.py").write_text((project / "script.py").read_text())
    where = Path(__file__).parents[2]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"PYTHONPATH": str(where)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert run("script.py") == "script.add"
    assert run("-m", "script") == "script.add"
    assert run("-m", "pkg") == "pkg.add"
    assert load_app("script").tasks.keys() == {"script.add"}
    assert isinstance(load_app("script"), TaskHarbor)
