"""The pydantic model of params.yaml: one submodel a stage, frozen, unknown keys refused."""

from pocketbert.params.artifacts import (
    BenchmarkParams,
    CalibrationParams,
    EvaluateParams,
    ExportOnnxParams,
    ExportTfliteParams,
    Objective,
    QuantizeParams,
    RecipeParams,
    SensitivityParams,
    ValidateParams,
)
from pocketbert.params.data import AugmentParams, HubDataset, PrepareParams
from pocketbert.params.mistakes import explain_mistakes
from pocketbert.params.pipeline import Budget, Params, PublishParams, ReportParams
from pocketbert.params.read import load_params, parse_params, read_yaml
from pocketbert.params.section import Fraction, Positive, Rate, Section, Seed
from pocketbert.params.training import (
    CheckpointStudent,
    ConfigStudent,
    CutStudent,
    DistillParams,
    FinetuneParams,
    HeadParams,
    HiddenLoss,
    OptimizerParams,
    QatParams,
    SoftenParams,
    TeachParams,
)

__all__ = [
    "AugmentParams",
    "BenchmarkParams",
    "Budget",
    "CalibrationParams",
    "CheckpointStudent",
    "ConfigStudent",
    "CutStudent",
    "DistillParams",
    "EvaluateParams",
    "ExportOnnxParams",
    "ExportTfliteParams",
    "FinetuneParams",
    "Fraction",
    "HeadParams",
    "HiddenLoss",
    "HubDataset",
    "Objective",
    "OptimizerParams",
    "Params",
    "Positive",
    "PrepareParams",
    "PublishParams",
    "QatParams",
    "QuantizeParams",
    "Rate",
    "RecipeParams",
    "ReportParams",
    "Section",
    "Seed",
    "SensitivityParams",
    "SoftenParams",
    "TeachParams",
    "ValidateParams",
    "explain_mistakes",
    "load_params",
    "parse_params",
    "read_yaml",
]
