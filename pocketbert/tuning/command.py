"""`pocketbert tune --device NAME`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pocketbert.errors import ParamsError

if TYPE_CHECKING:
    from pocketbert.tuning.tune import Tuned

_PARAMS = Path("params.yaml")


def tune(
    device: Annotated[str, typer.Option(help="A device of devices.yaml.")] = "local",
    budget_s: Annotated[float, typer.Option(min=10.0, help="Seconds for building and measuring.")] = 300.0,
    recipe: Annotated[
        str | None, typer.Option(help="Tune the files of this recipe of quantize.recipes (default: unquantized).")
    ] = None,
    gelu_tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Allow GELU by tanh within this logit difference, in spreads (default: exact only)."
        ),
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="What is to be fast: cpu, or gpu- and a precision, as in gpu-fp16.")
    ] = "cpu",
    classifier: Annotated[Path, typer.Option(help="The model in torch.")] = Path("models/classifier"),
    apply: Annotated[bool, typer.Option(help="Merge the profile into params.yaml.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Find the form of the TFLite graph that is fastest on a device, among forms with equal results.

    Each form is built, proven against torch and measured on the device in interleaved rounds. The winner goes into
    profiles/devices/NAME.yaml and, unless --no-apply, into params.yaml: `dvc repro` then builds it. A difference within
    the noise is none, and keeps what params.yaml asks for.
    """
    from pocketbert.params import load_params
    from pocketbert.profiles import merge_profiles
    from pocketbert.runtimes.base import Precision
    from pocketbert.tuning.tune import Request, tune

    params = load_params(_PARAMS)
    known = ["cpu", *(f"gpu-{precision}" for precision in get_args(Precision))]
    if accelerator not in known:
        raise ParamsError(f"there is no accelerator {accelerator!r}", f"Known: {', '.join(known)}.")
    request = Request(
        device, budget_s, classifier, recipe=recipe, gelu_tolerance=gelu_tolerance, accelerator=accelerator
    )
    tuned = tune(request, params)
    if apply:
        merge_profiles(_PARAMS, [tuned.profile])
    if as_json:
        typer.echo(json.dumps(asdict(tuned.race) | {"profile": str(tuned.profile), "seconds": tuned.seconds}, indent=1))
    else:
        typer.echo(as_text(tuned, applied=apply))


def as_text(tuned: "Tuned", *, applied: bool) -> str:
    """For people: the forms, the fastest first, and how it ended."""
    race = tuned.race
    width = max(len(c.form.name) for c in tuned.candidates)
    differences = {c.form.name: c.rel_diff for c in tuned.candidates}
    lines = [f"{'form':<{width}}  {'median ms':>9}  {'rounds':>6}  {'logit diff':>10}"]
    for name, median in sorted(race.medians_ms.items(), key=lambda item: item[1]):
        mark = "  (default)" if name == race.default else ""
        lines.append(f"{name:<{width}}  {median:>9.2f}  {race.rounds[name]:>6}  {differences[name]:>10.1e}{mark}")
    if race.duel:
        duel = race.duel
        lines.append(
            f"{race.challenger} takes {duel.ratio:.3f} of the default's time (95 % interval {duel.ratio_low:.3f} to "
            f"{duel.ratio_high:.3f}, {duel.rounds} rounds)"
        )
    lines.append(f"{race.outcome}: {race.winner}, after {tuned.seconds:.0f} s")
    lines.append(f"{tuned.profile}{' merged into params.yaml' if applied else ''}")
    return "\n".join(lines)
