"""A device's profile: profiles/devices/NAME.yaml, part of params.yaml as every profile, with why beside it."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROFILES_FOLDER = Path("profiles/devices")


def write_profile(settings: Mapping[str, Any], record: Mapping[str, Any], device: str, folder: Path) -> Path:
    """Write NAME.yaml with `settings` (sections of params.yaml) and NAME.json with `record`; return the former."""
    from ruamel.yaml import YAML

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{device}.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.width = 120
    text.write(
        f"# Written by `pocketbert tune --device {device}` on {record['measured_at']}; {device}.json says why.\n"
    )
    yaml.dump(dict(settings), text)
    path = folder / f"{device}.yaml"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path
