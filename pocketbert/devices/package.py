"""The agent as one file: the folder `agent` packed into a zip that Python runs."""

import hashlib
import io
import zipfile
from pathlib import Path

_ENTRY = "import sys\nfrom pocketbert_agent.command import main\nmain(sys.argv[1:])\n"
# A fixed time, so that the same source gives the same file.
_EPOCH = (2020, 1, 1, 0, 0, 0)


def pack_agent(folder: Path) -> Path:
    """Write agent-<hash>.pyz into `folder` and return it; the name changes with the content."""
    content = io.BytesIO()
    sources = sorted((Path(__file__).parent / "agent").glob("*.py"))
    members = {f"pocketbert_agent/{source.name}": source.read_text(encoding="utf-8") for source in sources}
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**members, "__main__.py": _ENTRY}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    data = content.getvalue()
    path = folder / f"agent-{hashlib.md5(data, usedforsecurity=False).hexdigest()[:12]}.pyz"
    path.write_bytes(data)
    return path
