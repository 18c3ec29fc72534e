"""Gather all results into a table, an HTML page and a model card; judge the budgets."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import ReportParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    prepared: Path = Path("data/prepared")
    classifier: Path = Path("models/classifier")
    validated: Path = Path("results/validate")
    evaluated: Path = Path("results/evaluate")
    benchmarked: Path = Path("results/benchmark")
    teach_plots: Path = Path("plots/teach")
    distill_plots: Path = Path("plots/distill")
    finetune_plots: Path = Path("plots/finetune")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    report: Path = Path("report")


def report(params: ReportParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write results.csv, index.html and MODEL_CARD.md; raise BudgetError where a row is over its budget."""
    from pocketbert.report.build import Sources, build_report

    curves = {"teach": inputs.teach_plots, "distill": inputs.distill_plots, "finetune": inputs.finetune_plots}
    sources = Sources(
        prepared=inputs.prepared,
        classifier=inputs.classifier,
        validated=inputs.validated,
        evaluated=inputs.evaluated,
        benchmarked=inputs.benchmarked,
        curves=curves,
    )
    return build_report(params, sources, outputs.report)


if __name__ == "__main__":
    run_stage(report)
