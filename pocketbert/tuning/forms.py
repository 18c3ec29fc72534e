"""Forms of the TFLite graph that a device may run at different speeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from pocketbert.params import FUSIONS, ExportTfliteParams, GraphVariants

# The forms are named by their choices, in this order; each axis starts with the default.
_PRODUCTS, _LINEAR, _HEADS = ("one", "split"), ("fully_connected", "conv"), ("4d", "3d")


@dataclass(frozen=True)
class Form:
    """One form: the values of export_tflite's keys that it stands for."""

    # Queries, keys and values by one product, or by one each.
    products: str
    variants: GraphVariants

    @property
    def name(self) -> str:
        """For instance one-fully_connected-4d-exact."""
        return "-".join((self.products, self.variants.linear, self.variants.heads, self.variants.gelu))

    def apply(self, params: ExportTfliteParams) -> ExportTfliteParams:
        """The parameters of an export in this form; what the form does not choose stays."""
        wanted = [f for f in FUSIONS if f in params.fuse or f == "one_product"]
        fuse = tuple(f for f in wanted if f != "one_product" or self.products == "one")
        return params.model_copy(update={"fuse": fuse, "variants": self.variants})

    def settings(self, params: ExportTfliteParams) -> dict[str, Any]:
        """The keys of export_tflite that the form chooses, as YAML values."""
        chosen = self.apply(params)
        return {"fuse": list(chosen.fuse), "variants": chosen.variants.model_dump()}


def default_form(params: ExportTfliteParams) -> Form:
    """The form that `params` ask for as they are."""
    return Form("one" if "one_product" in params.fuse else "split", params.variants)


def all_forms(params: ExportTfliteParams, *, tanh: bool) -> list[Form]:
    """The default form first, then every other one; GELU by tanh only where it is asked for."""
    first = default_form(params)
    return [first, *(form for form in _forms(params.variants.gelu, tanh) if form != first)]


def _forms(gelu: str, tanh: bool) -> Iterator[Form]:
    kinds = dict.fromkeys((gelu, *(("exact", "tanh") if tanh else ())))
    for products, linear, heads, kind in product(_PRODUCTS, _LINEAR, _HEADS, kinds):
        yield Form(products, GraphVariants.model_validate({"linear": linear, "heads": heads, "gelu": kind}))
