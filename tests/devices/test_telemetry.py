"""Sensors of boards and phones, from transcripts of their answers (tests/devices/transcripts/README.md)."""

import threading
import time
from pathlib import Path

import pytest

from pocketbert.devices.agent.child import ChildFailed
from pocketbert.devices.agent.files import write_json
from pocketbert.devices.agent.governor import restore_governors, set_governor
from pocketbert.devices.agent.probe import read_facts
from pocketbert.devices.agent.supervise import Supervisor
from pocketbert.devices.agent.telemetry import Sampler
from tests.devices.agents import make_plan, open_session

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def machine(name: str, root: Path) -> Path:
    """The files of a transcript, below `root`."""
    for line in (TRANSCRIPTS / f"{name}.sysfs").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            path, _, content = line.partition("\t")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            text = content.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0")
            (root / path).write_text(text + "\n", encoding="utf-8")
    return root


def test_a_rockchip_board(tmp_path: Path) -> None:
    root = machine("rk3588-mali-g610", tmp_path)
    sample = Sampler(root).sample()
    del sample["monotonic_s"]
    # The fan turns, which is no throttling; the GPU's cooling state is.
    assert sample == {
        "temperature_c": 43.461, "power_mw": 6450.0, "cpu_mhz": 2256.0, "gpu_mhz": 1000.0, "gpu_load_percent": 28.0,
        "throttle_events": 1,
    }  # fmt: skip
    facts = read_facts(root, root)
    assert facts["processor"] == "Radxa ROCK 5B"
    assert facts["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert facts["gpu_model"] == "Mali-G610 4 cores r0p0 0xA867"
    assert (facts["gpu_driver"], facts["governor"], facts["load_average_1min"]) == ("mali", "ondemand", 0.12)
    sources = Sampler(root).sources()
    assert sources["gpu_load"] == str(root / "sys/class/devfreq/fb000000.gpu/load")
    assert sources["power"] == str(root / "sys/class/hwmon/hwmon8/power1_input")


@pytest.mark.parametrize(
    ("name", "load", "power", "temperature"),
    [("dimensity-mali-g77", 41.0, 3257.744, 51.3), ("exynos-mali-g76", 17.0, 1452.5, 47.0)],
)
def test_phones(tmp_path: Path, name: str, load: float, power: float, temperature: float) -> None:
    sample = Sampler(machine(name, tmp_path)).sample()
    assert sample["gpu_load_percent"] == load
    assert sample["power_mw"] == pytest.approx(power)
    assert sample["temperature_c"] == temperature
    # No file, no value: nothing reads zero.
    assert "gpu_mhz" not in sample
    assert "throttle_events" not in sample


def test_a_board_with_a_free_driver_counts_the_process_s_own_gpu_time(tmp_path: Path) -> None:
    sample = Sampler(machine("rk3399-panfrost", tmp_path)).sample(77)
    assert sample["gpu_busy_ns"] == 1846584880 + 71932239
    assert sample["gpu_mhz"] == 200.0
    assert sample["power_mw"] == pytest.approx(820 * 5.012)
    assert sample["memory_bytes"] == 81000 * 1024


def test_the_governor_is_put_back(tmp_path: Path) -> None:
    root, work = machine("rk3588-mali-g610", tmp_path / "root"), tmp_path / "work"
    work.mkdir()
    place = root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    place.write_text("schedutil\n", encoding="utf-8")
    assert set_governor("performance", work, root) == [str(place)]
    assert place.read_text(encoding="utf-8") == "performance"
    restore_governors(work)
    restore_governors(work)
    assert place.read_text(encoding="utf-8") == "schedutil"


def heated(tmp_path: Path, **limits: float) -> tuple[Supervisor, Path]:
    """An agent on a board at 43 degrees, not started, and the file of its temperature."""
    root = machine("rk3588-mali-g610", tmp_path / "root")
    plan = make_plan(open_session(tmp_path), [], **limits)
    write_json(tmp_path / "plan.json", plan.model_dump())
    return Supervisor(tmp_path, root), root / "sys/class/thermal/thermal_zone0/temp"


def test_a_hot_device_is_left_to_cool(tmp_path: Path) -> None:
    agent, zone = heated(tmp_path, cool_down_s=30, max_temperature_c=60.0)
    assert agent._cool_down() < 0.5
    zone.write_text("51000", encoding="utf-8")
    threading.Timer(0.5, zone.write_text, ["45000"]).start()
    started = time.monotonic()
    assert agent._cool_down() >= 0.5
    assert time.monotonic() - started < 20


def test_a_device_that_stays_warm_is_measured_and_one_that_stays_hot_is_not(tmp_path: Path) -> None:
    agent, zone = heated(tmp_path, cool_down_s=0, max_temperature_c=60.0)
    zone.write_text("55000", encoding="utf-8")
    agent._cool_down()
    zone.write_text("61000", encoding="utf-8")
    with pytest.raises(ChildFailed, match="too hot: 61 degrees, its limit is 60"):
        agent._cool_down()
