"""An OCI layout of one image as an archive in the form of `docker save`, for scanners that read nothing else."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.store.oci import Store


def write(layout: Path, archive: Path) -> None:
    """Write the image of `layout` to `archive`: its configuration and layers as they are, and the list of them.

    Raises OutsideError where the layout is not one of one image.
    """
    store = Store(layout)
    try:
        [entry] = json.loads((layout / "index.json").read_text())["manifests"]
        manifest = store.read_json(entry["digest"])
        config, layers = manifest["config"]["digest"], [layer["digest"] for layer in manifest["layers"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutsideError(f"{layout} is not an OCI layout of one image: {error}") from None
    listed = json.dumps([{"Config": _name(config), "RepoTags": None, "Layers": [_name(layer) for layer in layers]}])
    with tarfile.open(archive, "w") as tar:
        described = tarfile.TarInfo("manifest.json")
        described.size = len(listed)
        tar.addfile(described, io.BytesIO(listed.encode()))
        for digest in dict.fromkeys((config, *layers)):
            tar.add(store.blob(digest), _name(digest), recursive=False)


def _name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
