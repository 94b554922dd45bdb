"""The source distribution and the wheel: sound, complete, readable where an index shows them, and installable."""

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import gunicorn_h2
from tests.support.pages import Page
from tests.support.server import ROOT

# The time is for downloads.
pytestmark = pytest.mark.timeout(300)

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv*", ".fuzz", ".*_cache", ".hypothesis", ".coverage*", "build", "dist", "crashes", "*.egg-info",
    "__pycache__", "*_pb2.py", "*_pb2_grpc.py")
MADE_BY_SETUPTOOLS = re.compile(r"PKG-INFO|gunicorn_h2\.egg-info/.*")


def run(*command, cwd=ROOT, env=()):
    """Run a command outside of this repository's packages; show what it says where it fails."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env={**environ, **dict(env)}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the repository, for setuptools to leave its own files in."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("sources") / "gunicorn_h2", ignore=NOT_SOURCES)


@pytest.fixture(scope="module")
def files(sources):
    """The names of the files in the repository."""
    return {path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.is_file()} - {".gitignore"}


@pytest.fixture(scope="module")
def distributions(sources, files, tmp_path_factory):
    """The source distribution, and the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", directory, sources)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def unpacked(distributions, tmp_path_factory):
    """The folder that the source distribution unpacks to."""
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(distributions[0]) as archive:
        archive.extractall(directory, filter="data")
    (folder,) = directory.iterdir()
    return folder


@pytest.fixture(scope="module")
def metadata(distributions):
    """The wheel's metadata."""
    with zipfile.ZipFile(distributions[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def setup_py():
    """The functions of setup.py."""
    spec = importlib.util.spec_from_file_location("setup_py", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_index_accepts_them(distributions):
    """Twine renders the description as PyPI does."""
    assert run(sys.executable, "-m", "twine", "check", "--strict", *distributions).count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    run(sys.executable, "-m", "check_wheel_contents", "--no-config", "--toplevel", "gunicorn_h2",
        "--package", ROOT / "gunicorn_h2", distributions[1])


def test_the_source_distribution_is_the_repository(unpacked, files):
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name in names if not MADE_BY_SETUPTOOLS.fullmatch(name)} == files


def test_its_tests_run(unpacked):
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_readme.py",
               "tests/test_layers.py", "tests/protocol/test_frames.py", cwd=unpacked, env={"PYTHONPATH": str(unpacked)})
    assert " passed" in said


@pytest.mark.compat
def test_it_is_installed_into_an_empty_environment(distributions, tmp_path):
    """The source distribution; tests/test_extras.py does so with the wheel."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--no-compile",
        distributions[0])
    said = run(python, "-c", "import gunicorn_h2; print(gunicorn_h2.__version__, gunicorn_h2.__file__)", cwd=tmp_path)
    version, file = said.split()
    assert version == gunicorn_h2.__version__
    assert Path(file).is_relative_to(tmp_path)
    assert "gunicorn-h2 doctor" in run(tmp_path / "venv" / "bin" / "gunicorn-h2", "doctor", "--help", cwd=tmp_path)


def test_the_description_has_no_link_that_leads_nowhere(metadata, setup_py):
    assert metadata.get_content_type() == "text/plain"
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert text.rstrip() == setup_py.description((ROOT / "README.md").read_text(encoding="utf-8")).rstrip()
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets == ["https://pypi.org/project/gunicorn-h2/#files"]


def test_the_description_names_what_the_readme_links_to(setup_py, files):
    readme = Page(ROOT / "README.md")
    named = set(re.findall(r" \(`([^`]+)`\)", setup_py.description(readme.text)))
    linked = {link.partition("#")[0] for link in readme.links if not link.endswith(".svg")} - {""}
    assert named == linked - {"LICENSE"}
    assert all(name in files or any(file.startswith(f"{name}/") for file in files) for name in named)


def test_the_description_links_to_a_site(setup_py):
    text = setup_py.description(
        "![chart](docs/a/b.svg)\n\n"
        "[changes](CHANGELOG.md), [some](docs/some.md#part), [conf](conf_examples), [up](#top)\n", "https://example.org/h2/")
    assert text == ("![chart](https://example.org/h2/a/b.svg)\n\n[changes](https://example.org/h2/CHANGELOG.html), "
                    "[some](https://example.org/h2/some.html#part), conf (`conf_examples`), up\n")


def test_the_sites_address_is_that_of_setup_cfg(setup_py, tmp_path, monkeypatch):
    assert setup_py.site() == ""
    monkeypatch.setattr(setup_py, "ROOT", tmp_path)
    for url in ("https://example.org/h2", "https://example.org/h2/"):
        (tmp_path / "setup.cfg").write_text(f"[metadata]\nproject_urls =\n    Documentation = {url}\n")
        assert setup_py.site() == "https://example.org/h2/"
