"""`pocketbert devices list`, `pocketbert devices probe NAME` and `pocketbert devices retry`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pocketbert.devices.probe import Probe

_AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]

# What is known of a device that does not answer.
_ABOUT = ("name", "kind", "reachable", "error")

devices_app = typer.Typer(help="The machines of devices.yaml, and what each can tell.", no_args_is_help=True)


@devices_app.command("list")
def list_devices(as_json: _AsJson = False) -> None:
    """Print the inventory. Nothing is connected to."""
    from pocketbert.devices.inventory import read_inventory

    devices = read_inventory().devices
    rows = [
        {
            "name": name,
            "kind": device.kind,
            "where": _place(device),
            "gpu": device.gpu and (device.gpu.name or device.gpu.driver),
            "tags": ", ".join(device.tags) or None,
        }
        for name, device in devices.items()
    ]
    typer.echo(json.dumps(rows, indent=1) if as_json else table(rows))


@devices_app.command("probe")
def probe(name: Annotated[str, typer.Argument(help="A device of devices.yaml.")], as_json: _AsJson = False) -> None:
    """Connect to a device and print what it is and what can be read there; exit code 9 where it does not answer."""
    from pocketbert.devices.probe import probe_device

    found = probe_device(name)
    typer.echo(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if as_json else describe(found))
    if found.error is not None:
        raise typer.Exit(9)


@devices_app.command("retry")
def measure_again() -> None:
    """Let the next `dvc repro` measure again on every device that was not reached or failed as a whole."""
    from pocketbert.devices.inventory import read_inventory
    from pocketbert.devices.retry import retry

    waiting = retry(read_inventory().devices)
    for name, reason in waiting:
        typer.echo(f"{name}: the next `dvc repro` measures there again. It had failed: {reason}")
    if not waiting:
        typer.echo("No device is waiting: each has been measured, or never been asked.")


def describe(found: "Probe") -> str:
    """A table for people; a dash is what the device does not tell."""
    told = found.as_dict() if found.reachable else {key: getattr(found, key) for key in _ABOUT}
    rows = [{"of": key.replace("_", " "), "value": _say(key, value)} for key, value in told.items()]
    return table(rows, heading=False)


def table(rows: list[dict[str, Any]], *, heading: bool = True) -> str:
    """Columns of equal width; a line of a cell that has several stands below its first one."""
    if not rows:
        return "devices.yaml declares no device"
    cells = [list(rows[0])] if heading else []
    for row in rows:
        lines = [str("-" if value is None else value).split("\n") for value in row.values()]
        cells += [[column[i] if i < len(column) else "" for column in lines] for i in range(max(map(len, lines)))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    padded = [[f"{text:<{width}}" for text, width in zip(line, widths, strict=True)] for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _place(device: Any) -> str | None:
    if device.kind == "ssh":
        return f"{device.user}@{device.address}:{device.port}"
    return str(device.serial) if device.kind == "adb" else device.work


def _say(key: str, value: object) -> str:
    if isinstance(value, dict):
        width = max((len(name) for name in value), default=0)
        return "\n".join(f"{name:<{width}}  {'-' if v is None else v}" for name, v in value.items()) or "-"
    if isinstance(value, int) and key.endswith("_bytes"):
        return f"{value / 1e6:,.0f} MB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
