"""Gather all results into a table, an HTML page and a model card; judge the budgets."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import Params
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    prepared: Path = Path("data/prepared")
    classifier: Path = Path("models/classifier")
    validated: Path = Path("results/validate")
    evaluated: Path = Path("results/evaluate")
    benchmarked: Path = Path("results/benchmark")
    sensitivity: Path = Path("results/sensitivity")
    delegated: Path = Path("results/delegate")
    teach_plots: Path = Path("plots/teach")
    distill_plots: Path = Path("plots/distill")
    finetune_plots: Path = Path("plots/finetune")
    qat_plots: Path = Path("plots/qat")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    report: Path = Path("report")


def report(params: Params, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the table, the choice, the page and the card; raise BudgetError where a row is over its budget."""
    from pocketbert.report.build import Sources, build_report

    curves = {
        "teach": inputs.teach_plots,
        "distill": inputs.distill_plots,
        "finetune": inputs.finetune_plots,
        "qat": inputs.qat_plots,
    }
    sources = Sources(
        prepared=inputs.prepared,
        classifier=inputs.classifier,
        validated=inputs.validated,
        evaluated=inputs.evaluated,
        benchmarked=inputs.benchmarked,
        sensitivity=inputs.sensitivity,
        curves=curves,
        delegated=inputs.delegated,
    )
    return build_report(params.report, sources, outputs.report, params.quantize.objective)


if __name__ == "__main__":
    run_stage(report)
