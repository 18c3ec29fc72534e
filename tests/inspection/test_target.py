"""`--runtime`: a version, or a device of devices.yaml."""

from pathlib import Path

import onnx as onnx_format
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.errors import ParamsError
from pocketbert.inspection.inspect import inspect_file
from pocketbert.inspection.target import find_target
from pocketbert.inspection.text import as_text

DEVICES = """
devices:
  local: {kind: local}
  phone: {kind: local, runtimes: {tflite: "2.8", onnx: "1.11"}}
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "devices.yaml").write_text(DEVICES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "devices.yaml"


def test_a_device_stands_for_the_versions_that_it_states(devices: Path) -> None:
    assert find_target("phone", "tflite").version == (2, 8, 0)
    assert find_target("phone", "onnx").version == (1, 11, 0)
    assert find_target("2.13", "tflite").version == (2, 13, 0)


def test_the_device_is_judged_by_its_runtime(devices: Path, tflite: Artifact, onnx: Artifact) -> None:
    text = as_text(inspect_file(tflite.folder, runtime="phone"))
    assert "FINDING: runtime 2.8 (phone) is too old for GELU v1: needs 2.9" in text
    # Opset 17, as exported.
    inspection = inspect_file(onnx.folder, runtime="phone")
    assert "FINDING: runtime 1.11 (phone) is too old for opset 17: needs 1.12" in as_text(inspection)
    assert not inspection.fine
    for artifact in (tflite, onnx):
        assert inspect_file(artifact.folder, runtime="local").fine


def test_a_device_that_is_not_there_is_named(devices: Path) -> None:
    with pytest.raises(ParamsError, match=r"'phon' is neither a version nor a device .* one of: local, phone"):
        find_target("phon", "tflite")
    devices.write_text("devices: {phone: {kind: local, runtimes: {tflite: 2.10}}}", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"devices\.phone\.runtimes\.tflite"):
        find_target("phone", "tflite")
    devices.unlink()
    with pytest.raises(ParamsError, match=r"there is no devices\.yaml here"):
        find_target("phone", "tflite")


@pytest.mark.parametrize(
    ("opset", "runtime", "says"),
    [
        (7, "1.0", "runtime 1.0 knows every operator"),
        (21, "1.17", "FINDING: runtime 1.17 is too old for opset 21: needs 1.18"),
        (99, "1.17", "FINDING: runtime 1.17 is too old for opset 99: opset 99 is newer than the table"),
        (99, "1.30", "UNKNOWN: opset 99 on runtime 1.30"),
    ],
)
def test_the_opset_tells_the_lowest_onnx_runtime(opset: int, runtime: str, says: str, tmp_path: Path) -> None:
    assert says in as_text(inspect_file(one_node(tmp_path / "x.onnx", "", opset), runtime=runtime))


def test_operators_of_onnx_runtime_itself_are_no_finding(tmp_path: Path) -> None:
    own = inspect_file(one_node(tmp_path / "own.onnx", "com.microsoft"), runtime="1.20")
    assert own.fine
    assert "com.microsoft.Gelu     1  ONNX Runtime's own" in as_text(own)
    assert "UNKNOWN: com.microsoft.Gelu on runtime 1.20" in as_text(own)
    custom = inspect_file(one_node(tmp_path / "custom.onnx", "com.example"), runtime="1.20")
    assert not custom.fine


def test_a_dropout_of_training_mode_is_a_finding(tmp_path: Path) -> None:
    inspection = inspect_file(one_node(tmp_path / "x.onnx", "", op="RandomUniformLike"))
    assert not inspection.fine
    assert "RandomUniformLike (1 times) draws random numbers: was it exported in training mode?" in as_text(inspection)


def one_node(path: Path, domain: str, opset: int = 17, op: str = "Gelu") -> Path:
    """y = op(x), by default Gelu of a domain."""
    helper, kind = onnx_format.helper, onnx_format.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid(name, opset if not name else 1) for name in {"", domain}]
    onnx_format.save(helper.make_model(graph, opset_imports=opsets), path)
    return path
