"""LiteRT's benchmark_model: what it prints, and how it is made to prove what it times (a stand-in takes its flags)."""

import struct
import sys
from pathlib import Path

import pytest

from pocketbert.devices.agent.engine import Refused
from pocketbert.devices.base import Answer, PlannedArtifact
from pocketbert.devices.benchmark_tool import Layers, make_answer, read_figures
from pocketbert.devices.follow import Event, Patience
from pocketbert.devices.inventory import read_inventory
from pocketbert.devices.links.base import LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.shell import ShellSession
from pocketbert.errors import ParamsError
from tests.devices.agents import make_plan

TRANSCRIPTS = Path(__file__).parent / "transcripts"
CUT = LinkLost("the connection broke", "Look at the cable.")
# Its logits are the sum of each input.
STAND_IN = """
import pathlib, struct, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
names = [item.split(":")[1] for item in flags["input_layer_value_files"].split(",")]
files = [pathlib.Path(name).read_bytes() for name in names]
sums = [sum(struct.unpack(f"<{len(data) // 4}i", data)) for data in files]
if flags["graph"] == "bad": sys.exit("ERROR: Failed to load model")
if flags["graph"] != "old": pathlib.Path("output").write_bytes(struct.pack("<2f", *sums))
assert flags["input_layer"] == "input0,input1" and flags["input_layer_shape"] == "1,3:3"
runs = int(flags["num_runs"])
print(f"count={runs} first=9 curr=9 min=1 max=9 avg=5000 std=1 p5=1 median=4000 p95=9")
print("Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 5, Inference (avg): 5000", file=sys.stderr)
"""


def printed(name: str) -> str:
    return (TRANSCRIPTS / f"benchmark_model-{name}.txt").read_text(encoding="utf-8")


def test_a_median_of_the_processor() -> None:
    figures = read_figures(printed("cpu"))
    assert (figures["latencies_ms"], figures["summary_runs"], figures["accelerator"]) == ([24.925], 40, "cpu")
    assert figures["memory_peak_bytes"] == int(45.5 * 2**20)
    # XNNPACK is the processor, too.
    assert (figures["delegated_ops"], figures["partitions"]) == (None, None)
    assert figures["wall_s"] == pytest.approx(40 * 0.0250375)
    assert "median" in figures["runtime"]


def test_a_gpu_that_took_most_of_the_graph() -> None:
    figures = read_figures(printed("gpu"))
    assert (figures["accelerator"], figures["delegated_ops"], figures["partitions"]) == ("gpu", 79, 5)
    assert (figures["latencies_ms"], figures["summary_runs"], figures["memory_peak_bytes"]) == ([6.402], 120, None)


def test_an_old_version_tells_a_mean() -> None:
    figures = read_figures(printed("old"))
    assert (figures["latencies_ms"], figures["summary_runs"]) == ([2950.34], 50)
    assert "mean" in figures["runtime"]
    # A delta is no peak.
    assert figures["memory_peak_bytes"] is None


def test_the_processor_s_time_is_not_the_gpu_s() -> None:
    with pytest.raises(Refused, match="the GPU delegate took no operator"):
        read_figures(printed("gpu-unused"))


@pytest.mark.parametrize("text", ["", "count=5 first=1", "hello", "Inference timings in us: Init: 1"])
def test_what_is_no_benchmark_is_no_result(text: str) -> None:
    with pytest.raises(Refused, match="Inference timings"):
        read_figures(text)


def test_no_number_without_logits() -> None:
    text = printed("cpu").encode()
    for logits, rows in ((b"", 2), (b"1234567", 1), (b"1234" * 3, 2)):
        with pytest.raises(Refused, match="no float logits"):
            make_answer(text, logits, rows, 0.0)
    with pytest.raises(Refused, match="NaN"):
        make_answer(text, struct.pack("<f", float("nan")), 1, 0.0)
    answer = Answer.model_validate(make_answer(text, struct.pack("<4f", 1, 2, 3, 4), 2, 0.0))
    assert answer.read_logits().tolist() == [[1, 2], [3, 4]]
    assert answer.cpu_s is None


def measure(work: Path, graph: str, link: FakeLink | None = None) -> list[Event]:
    """Two rounds of the stand-in over three rows of two inputs."""
    (work / "rows").write_bytes(struct.pack("<18i", *range(18)))
    (work / "tool.py").write_text(STAND_IN, encoding="utf-8")
    layers = Layers(((1, 3), (3,)), (12, 12))
    command = [sys.executable, str(work / "tool.py"), f"--graph={graph}", "--num_runs={runs}"]
    artifact = PlannedArtifact.model_validate({
        "name": "a", "engine": "native", "model": "/none", "inputs": str(work / "rows"), "command": command,
        "layer_shapes": layers.shapes, "layer_sizes": layers.sizes,
    })  # fmt: skip
    folder = str(work / "a 'phone'")
    with ShellSession("phone", link or FakeLink(LocalLink()), folder, Patience(0.05, 5.0, 20.0)) as session:
        return list(session.run(make_plan(session, [artifact], proof_rows=3), 0))


def test_each_row_is_proven_over_a_link_that_breaks(tmp_path: Path) -> None:
    faults = [Fault("read", at, CUT) for at in range(2, 40, 5)] + [Fault("start", 2, CUT)]
    events = measure(tmp_path, "good", FakeLink(LocalLink(), faults=faults))
    answers = [Answer.model_validate(e["answer"]) for e in events if e["event"] == "measured"]
    assert [a.latencies_ms for a in answers] == [[4.0], [4.0]]
    assert [a.summary_runs for a in answers] == [2, 2]
    for answer in answers:
        assert answer.read_logits().tolist() == [[3, 12], [21, 30], [39, 48]]


@pytest.mark.parametrize(("graph", "words"), [("bad", "Failed to load model"), ("old", "older than its flag")])
def test_a_tool_that_fails_or_proves_nothing(tmp_path: Path, graph: str, words: str) -> None:
    failed = [e["cause"] for e in measure(tmp_path, graph) if e["event"] == "failed"]
    assert len(failed) == 1
    assert words in failed[0]


@pytest.mark.parametrize("entry", ["kind: local", "kind: adb, serial: x"])
def test_it_is_asked_by_plain_commands(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(f"devices: {{d: {{{entry}, runner: {{command: [x], answer: benchmark_model}}}}}}", encoding="utf-8")
    with pytest.raises(ParamsError, match="python: null"):
        read_inventory(file)
