"""The image of this tree, built once a run, out of a folder in which secrets lie about."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.containers.podman import IMAGE, ROOT, build, why_not

CANARY = "canary-5f1c0e7d9b"
"""Stands in every file that must not get into an image."""
PLANTED = (".env", "secrets/keys", "edge/private.key", "ramal/.env", "runtime/server.pem", "notes.txt", ".git/config")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its name."""
    if reason := why_not():
        pytest.skip(reason)
    context = tmp_path_factory.mktemp("context")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)
    for name in PLANTED:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(f"password = {CANARY}\n")
    build(Path(context))
    return IMAGE
