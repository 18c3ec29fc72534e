"""Parameters of the last stages, and params.yaml as a whole."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from pocketbert.params.artifacts import (
    BenchmarkParams,
    EvaluateParams,
    ExportOnnxParams,
    ExportTfliteParams,
    QuantizeParams,
    ValidateParams,
)
from pocketbert.params.data import AugmentParams, PrepareParams
from pocketbert.params.delegation import DelegateParams
from pocketbert.params.section import Positive, Section
from pocketbert.params.training import DistillParams, FinetuneParams, QatParams, SoftenParams, TeachParams
from pocketbert.redaction import hide_secrets


class Budget(Section):
    """Upper limits for the rows whose artifact and device match the patterns (shell wildcards)."""

    artifact: str
    device: str = "*"
    accuracy_drop_max: Annotated[float, Field(strict=True)] | None = None
    latency_p90_ms_max: Annotated[float, Field(strict=True, gt=0.0)] | None = None
    size_bytes_max: Positive | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> "Budget":
        if self.accuracy_drop_max is None and self.latency_p90_ms_max is None and self.size_bytes_max is None:
            raise ValueError("needs a limit: accuracy_drop_max, latency_p90_ms_max or size_bytes_max")
        return self


class ReportParams(Section):
    """Budgets, and what the report shows."""

    budgets: list[Budget] = Field(default_factory=list)
    # Classes shown in the confusion matrix (the most confused ones).
    worst_classes: Positive = 12


class PublishParams(Section):
    """Where runs are remembered. The URI's default is MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."""

    tracking_uri: str | None = None
    experiment: str = "pocketbert"
    registered_model: str = "pocketbert"
    # Artifacts registered as model versions (shell wildcards over artifact names).
    register_artifacts: list[str] = Field(default_factory=lambda: ["tflite-*"])

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        # params.yaml is committed, and DVC copies it into dvc.lock.
        if uri is not None and hide_secrets(uri) != uri:
            raise ValueError("holds a password, which git would keep: set it in MLFLOW_TRACKING_URI instead")
        return uri


class Params(Section):
    """params.yaml."""

    prepare: PrepareParams = PrepareParams()
    augment: AugmentParams = AugmentParams()
    teach: TeachParams = TeachParams()
    soften: SoftenParams = SoftenParams()
    distill: DistillParams = DistillParams()
    finetune: FinetuneParams = FinetuneParams()
    qat: QatParams = QatParams()
    export_onnx: ExportOnnxParams = ExportOnnxParams()
    export_tflite: ExportTfliteParams = ExportTfliteParams()
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    quantize: QuantizeParams = QuantizeParams()
    evaluate: EvaluateParams = EvaluateParams()
    delegate: DelegateParams = DelegateParams()
    benchmark: BenchmarkParams = BenchmarkParams()
    report: ReportParams = ReportParams()
    publish: PublishParams = PublishParams()

    @model_validator(mode="after")
    def _rounds_what_it_trained(self) -> "Params":
        fused = self.export_tflite.fuse and self.export_tflite.profile != "stock"
        if self.qat.enabled and fused:
            raise ValueError(
                "qat.enabled = true needs export_tflite.fuse = []: fusions change the weights behind the training, "
                "which then round to others than were trained"
            )
        return self

    def section(self, stage: str) -> Section:
        """The submodel of a stage (pydantic owns the attribute name `validate`)."""
        return getattr(self, "validate_" if stage == "validate" else stage)
