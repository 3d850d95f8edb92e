"""The two ways to install glamkit name the same packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from glamkit.errors import DISTRIBUTION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "environment.yml").read_text()
ENVIRONMENT = yaml.safe_load(TEXT)
CONDA_NAMES = {"torch": "pytorch"}
# The packages that the project promises to name in its conda environment.
CARD = {"torch", "mamba-ssm", "gymnasium", "ale-py", "jupyterlab", "ipywidgets", "matplotlib", "papermill"}


def specifiers(lines: list[str]) -> dict[str, SpecifierSet]:
    """Package name (as pip calls it) -> its versions."""
    pip_names = {conda: pip for pip, conda in CONDA_NAMES.items()}
    needs = [Requirement(line) for line in lines]
    return {pip_names.get(need.name, need.name): need.specifier for need in needs}


CORE = specifiers(PROJECT["dependencies"])
EXTRAS = PROJECT["optional-dependencies"]
LAB = specifiers(EXTRAS["lab"])
CONDA = specifiers([line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)])
(PIP,) = [part["pip"] for part in ENVIRONMENT["dependencies"] if isinstance(part, dict)]
WIDGETS = {"glamkit.analysis.studio.widget"}
MODULES = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "glamkit").rglob("*.py"))
BASE = {".".join(path.parts).removesuffix(".__init__") for path in MODULES if path.name != "__main__"} - WIDGETS
SWITCHED_OFF = specifiers(re.findall(r"^  # - (\S+)", TEXT, re.M))


def test_conda_and_pip_install_the_same_packages_in_the_same_versions() -> None:
    pip = specifiers([line for line in PIP if not line.startswith("-")])
    conda = {name: versions for name, versions in CONDA.items() if name != "python"}
    assert CONDA["python"] == SpecifierSet(PROJECT["requires-python"])
    assert "pip" in conda, "conda warns if pip is used without being named"
    both = {name: versions for name, versions in {**conda, **pip}.items() if name != "pip"}
    assert both == CORE | LAB
    assert not set(conda) & set(pip), "named twice"


def test_the_checkout_itself_is_installed() -> None:
    assert PIP[-1] == "-e ."


def test_everything_comes_from_conda_forge() -> None:
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    assert ENVIRONMENT["name"] == "glamkit"


def test_mamba_is_one_line_that_is_switched_off() -> None:
    assert set(SWITCHED_OFF) == {"mamba-ssm"}
    assert "conda install -n glamkit -c conda-forge mamba-ssm" in TEXT
    page = (ROOT / "glamkit" / "ops" / "README.md").read_text()
    assert "pip install --no-build-isolation --no-deps mamba-ssm" in page


def test_the_environment_names_all_that_it_promises() -> None:
    assert set(CONDA) | set(SWITCHED_OFF) | set(specifiers(PIP[:-1])) >= CARD


def test_the_games_come_from_where_they_are_shipped() -> None:
    """conda-forge builds ale-py without its ROMs, so that no game would open."""
    assert "ale-py" not in CONDA and any(line.startswith("ale-py") for line in PIP)


def test_nothing_needs_cuda() -> None:
    assert not {"mamba-ssm", "causal-conv1d"} & set(CORE).union(*map(specifiers, EXTRAS.values()))


def test_messages_name_the_distribution_and_its_extras() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    library = [path for kind in ("*.py", "*.md", "*.ipynb") for path in sorted((ROOT / "glamkit").rglob(kind))]
    texts = {path: path.read_text() for path in [*library, *(ROOT / "notebooks").rglob("*.ipynb")]}
    assert [str(path) for path, text in texts.items() if "glamkit[" in text] == [], "that is another project on PyPI"
    wanted = re.compile(r"\binstall\(['\"](\w+)['\"]\)|\brequire\(['\"]\w+['\"], ['\"](\w+)['\"]\)")
    extras = [name for text in texts.values() for found in wanted.findall(text) for name in found if name]
    assert {"lab", "hub", "cluster", "tensorboard"} == set(extras) <= set(EXTRAS)


def test_what_tests_need_is_in_one_extra() -> None:
    (ours,) = [need for need in map(Requirement, EXTRAS["test"]) if need.name == DISTRIBUTION]
    assert ours.extras == {"hub", "lab", "tensorboard"}


def test_the_base_works_without_what_notebooks_and_tests_need() -> None:
    """All modules but that of widgets, which needs the first of them; and two commands say what they lack."""
    notebooks = ["jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill", "IPython", "nbclient"]
    notebooks += ["jupyter_client"]
    tests = ["jaxtyping", "beartype", "pytest", "hypothesis", "playwright", "mypy"]
    program = f"""
import sys, importlib
for name in {notebooks + tests}: sys.modules[name] = None
for name in {sorted(BASE)}: importlib.import_module(name)
from glamkit import cli
assert cli.main(["notebook", "02_train"]) == cli.main(["lab"]) == 1
for name in {notebooks}: del sys.modules[name]
for name in {sorted(WIDGETS)}: importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sentences = done.stderr.splitlines()
    assert len(sentences) == 2
    assert all(one.endswith("is not installed: pip install 'glamkit-rl[lab]'.") for one in sentences)
