"""What the sensors' readings say about a measurement that they were taken beside."""

from collections.abc import Sequence

from pocketbert.devices.base import Answer, Sample


def summarise_samples(answers: Sequence[Answer], samples: Sequence[Sample]) -> dict[str, float | bool | None]:
    """Figures over the samples inside the measured runs of all rounds; None where no sensor told.

    The mean power of an instantaneous sensor stands in where no energy counter was read.
    """
    inside = [s for a in answers for s in samples if _is_inside(s, a)]
    ends = [t for a in answers for t in (a.temperature_start_c, a.temperature_end_c)]
    counts = [s.throttle_events for s in inside if s.throttle_events is not None]
    figures: dict[str, float | bool | None] = {
        "temperature_max_c": _max([*ends, *(s.temperature_c for s in inside)]),
        "gpu_mhz_mean": _mean([s.gpu_mhz for s in inside]),
        "gpu_load_percent_mean": _mean([s.gpu_load_percent for s in inside]),
        "throttled": max(counts) > min(counts) if len(counts) > 1 else None,
    }
    power = _mean([s.power_mw for s in inside])
    if power is not None and all(a.power_mean_mw is None for a in answers):
        figures["power_mean_mw"] = power
    return figures


def _is_inside(sample: Sample, answer: Answer) -> bool:
    at = sample.monotonic_s
    return at is not None and answer.started_s <= at <= answer.started_s + answer.wall_s


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _max(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
