"""Builds what a release consists of: wheel, source distribution and npm packages, checked, in `dist/`.

`make release` runs it. It builds what is committed, not what lies in the folder, and publishes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
#: What carries the version, besides pyproject.toml.
PACKAGES: Final = ("sdk/js/client/package.json", "sdk/js/react/package.json", "console/package.json")
LOCKS: Final = ("sdk/js/package-lock.json", "console/package-lock.json", "examples/web_app/package-lock.json")
#: Names of our packages in lock files and in dependencies.
OWN: Final = ("@watchout/client", "@watchout/react", "@watchout/console")
#: Where the code has its version.
SOURCE: Final = "common/process/about.py"
#: Pages that name files of a release.
PAGES: Final = ("docs/clients.md", "docs/deploy.md")
LICENSE: Final = "Apache-2.0"


def release_version(root: Path) -> str:
    """Return the version of the tree: that of pyproject.toml."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def faults(root: Path) -> list[str]:
    """Return, a sentence each, why the files of a tree do not make one release."""
    version = release_version(root)
    found = [
        f"{where} has {other}, pyproject.toml has {version}" for where, other in _versions(root) if other != version
    ]
    licenses = {name: _json(root / name).get("license") for name in (*PACKAGES, "sdk/js/package.json")}
    found += [
        f"{name} has the license {its!r}, expected {LICENSE!r}" for name, its in licenses.items() if its != LICENSE
    ]
    text = (root / "LICENSE").read_bytes()
    found += [
        f"{folder}/LICENSE differs from LICENSE"
        for folder in ("sdk/js/client", "sdk/js/react")
        if not (root / folder / "LICENSE").exists() or (root / folder / "LICENSE").read_bytes() != text
    ]
    return found + changelog_faults((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)


def changelog_faults(text: str, version: str) -> list[str]:
    """Return what CHANGELOG.md lacks for a release of this version."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    heads = [section.partition("\n")[0].strip() for section in sections]
    if len(heads) < 2 or heads[0] != "[Unreleased]":
        return ["CHANGELOG.md: expected [Unreleased] as the first section, and the sections of the releases below it"]
    found = []
    if re.search(r"^- ", sections[0], re.MULTILINE):
        found.append(f"CHANGELOG.md: there are entries under [Unreleased]; move them to the section of {version}")
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}", heads[1]):
        found.append(f"CHANGELOG.md: the newest release is {heads[1]!r}, expected '[{version}] - YYYY-MM-DD'")
    elif not re.search(r"^- ", sections[1], re.MULTILINE):
        found.append(f"CHANGELOG.md: the section of {version} has no entry")
    return found


def _versions(root: Path) -> list[tuple[str, str]]:
    """Return where else a version stands, and which."""
    source = (root / SOURCE).read_text(encoding="utf-8")
    found = [(SOURCE, each) for each in re.findall(r'^VERSION: Final = "(.*)"$', source, re.MULTILINE)]
    for name in PACKAGES:
        package = _json(root / name)
        found.append((name, package["version"]))
        for kind in ("dependencies", "peerDependencies"):
            found += [(f"{name}, {kind}", text) for own, text in package.get(kind, {}).items() if own in OWN]
    for name in LOCKS:
        for path, entry in _json(root / name)["packages"].items():
            if entry.get("name") in OWN and "version" in entry:
                found.append((f"{name}, {path or entry['name']}", entry["version"]))
    for name in PAGES:
        text = (root / name).read_text(encoding="utf-8")
        found += [(name, each) for each in re.findall(r"\bwatchout-(?:client-|react-)?(\d+\.\d+\.\d+)", text)]
    return found


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def tree_faults(root: Path) -> list[str]:
    """Return why the commit that is checked out cannot be released: changed files, or another commit has the tag."""
    changed = _git(root, "status", "--porcelain").splitlines()
    found = (
        [f"the tree has changes that are not committed: {', '.join(line[3:] for line in changed[:5])}"]
        if changed
        else []
    )
    tag = f"v{release_version(root)}"
    tagged = _git(root, "tag", "--list", tag) and _git(root, "rev-list", "-n1", tag)
    if tagged and tagged != _git(root, "rev-parse", "HEAD"):
        found.append(f"{tag} is the tag of another commit, {tagged[:12]}: raise the version")
    return found


def _git(root: Path, *words: str) -> str:
    return _run("git", *words, cwd=root).decode().strip()


def _run(*command: str | Path, cwd: Path) -> bytes:
    """Return the output of a command. Raises `SystemExit` with all that it said, and where it is not installed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, check=False, capture_output=True)
    except FileNotFoundError:
        raise SystemExit(f"release: the program {words[0]} is needed, and is not installed") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise SystemExit(f"release: {' '.join(words)} failed:\n{said}")
    return done.stdout


def build(root: Path, target: Path) -> list[Path]:
    """Build all packages of the commit that is checked out into `target`, and check them. Returns the files.

    Ends the process with the output of whatever fails.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="watchout-release-") as directory:
        source, made = Path(directory, "source"), Path(directory, "made")
        made.mkdir()
        archive = _run("git", "archive", "HEAD", cwd=root)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
        # The wheel is built from the source distribution, so that one that lacks a file is noticed.
        _run(sys.executable, "-m", "build", "--outdir", made, source, cwd=source)
        _run(sys.executable, "-m", "twine", "check", "--strict", *made.iterdir(), cwd=source)
        js = source / "sdk/js"
        _run("npm", "ci", "--no-audit", "--no-fund", cwd=js)
        _run("npm", "run", "build", cwd=js)
        _run("npm", "pack", "--workspaces", "--pack-destination", made, cwd=js)
        for package in made.glob("*.tgz"):
            _run("node", "node_modules/publint/src/cli.js", package, "--strict", cwd=js)
            _run(
                "node",
                "node_modules/@arethetypeswrong/cli/dist/index.js",
                package,
                "--profile",
                "esm-only",
                "--quiet",
                cwd=js,
            )
        files = sorted(made.iterdir())
        if wrong := content_faults(files, release_version(source)):
            raise SystemExit("release: " + "\nrelease: ".join(wrong))
        sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
        for file in files:
            (target / file.name).write_bytes(file.read_bytes())
    (target / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return [*(target / file.name for file in files), target / "SHA256SUMS"]


def content_faults(files: list[Path], version: str) -> list[str]:
    """Return what is missing among the files of a release, or in one of them."""
    names = {file.name for file in files}
    wheels = [file for file in files if file.suffix == ".whl" and file.name.startswith(f"watchout-{version}-")]
    expected = {f"watchout-{version}.tar.gz", f"watchout-client-{version}.tgz", f"watchout-react-{version}.tgz"}
    found = [f"{name} was not built" for name in sorted(expected - names)]
    if len(wheels) != 1:
        return [*found, f"one wheel of {version} was expected, there are {len(wheels)}"]
    inside = zipfile.ZipFile(wheels[0]).namelist()
    parts = ("watchout/gateway/http/console/index.html", "watchout/client/py.typed", "licenses/LICENSE")
    found += [f"{wheels[0].name} lacks {part}" for part in parts if not any(name.endswith(part) for name in inside)]
    for file in (file for file in files if file.suffix == ".tgz"):
        with tarfile.open(file) as tar:
            lacks = {"package/LICENSE", "package/README.md", "package/dist/index.js"} - set(tar.getnames())
        found += [f"{file.name} lacks {name}" for name in sorted(lacks)]
    return found


def main() -> None:
    """Build a release, or say why not and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="build nothing; say whether the tree can be released")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go (dist)")
    given = parser.parse_args()
    if wrong := [*tree_faults(ROOT), *faults(ROOT)]:
        raise SystemExit("release: " + "\nrelease: ".join(wrong))
    version = release_version(ROOT)
    if given.check:
        print(f"{version} can be released")
        return
    for file in build(ROOT, given.out):
        print(file)
    print(f"then: git tag v{version}, and publish what is in {given.out}")


if __name__ == "__main__":
    main()
