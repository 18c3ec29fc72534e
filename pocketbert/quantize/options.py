"""The options that recipes take: in params.yaml, `options` of a variant overrides these defaults."""

from typing import Annotated, Literal

from pydantic import Field

from pocketbert.errors import ParamsError
from pocketbert.params import Section

Tables = Literal["float", "fp16", "int8", "int4", "int4_row"]
# Values of an embedding row that share a scale in int4 tables.
INT4_TABLE_BLOCK = 32


class RecipeOptions(Section):
    """Options of every recipe."""

    # Regular expressions, searched for in the names of ONNX nodes or of TFLite ops' output tensors: what matches
    # stays in float. "auto": the list that pocketbert/quantize/sensitivity.py finds, which stands here when a recipe's
    # function is called.
    exclude: tuple[str, ...] | Literal["auto"] = ()
    # How the embedding tables are stored (most of a small BERT's bytes): int8 with one scale a row, int4 with
    # one a block of 32, int4_row (TFLite) with one a row, which GPUs take.
    embeddings: Tables = "int8"

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions of `exclude`; raises ParamsError for an "auto" that nobody has replaced."""
        if self.exclude == "auto":
            raise ParamsError("exclude: auto has not been replaced by a list", "Run `dvc repro`, not the recipe alone.")
        return self.exclude


class Fp16Options(RecipeOptions):
    """Every recipe's options; the tables in fp16 as well."""

    embeddings: Tables = "fp16"


class OnnxFp16Options(Fp16Options):
    """Weights and computation in fp16."""

    # Inputs and outputs stay as they are (logits in fp32).
    keep_io_types: bool = True
    # Op types that stay in fp32, beside those for which ONNX Runtime has no fp16 kernel.
    keep_fp32_ops: tuple[str, ...] = ()


class OnnxDynamicInt8Options(RecipeOptions):
    """Weights in int8; activations are quantized at run time, one scale a tensor."""

    per_channel: bool = True
    weight_type: Literal["QInt8", "QUInt8"] = "QInt8"
    # 7-bit weights: needed only on x86 processors without VNNI, where int8 products saturate.
    reduce_range: bool = False


class StaticOptions(RecipeOptions):
    """How the scales of static recipes are found."""

    # min_max: the extremes; percentile: the range within `quantize.calibration.clip` (99.99 where that is null);
    # entropy: the range that loses the least information (Kullback-Leibler).
    ranges: Literal["min_max", "percentile", "entropy"] = "min_max"
    # An op is quantized dynamically where (max - min) / RMS of an activation exceeds this: a few huge values
    # would leave a typical one less than 256 / 32 = 8 steps.
    crest_factor_max: Annotated[float, Field(gt=0.0)] = 32.0


class OnnxStaticOptions(StaticOptions):
    """Products with a weight matrix in int8 on calibrated activations; the rest computes in float32."""

    per_channel: bool = True
    activation_type: Literal["QInt8", "QUInt8"] = "QUInt8"
    # Quantize the products' outputs too, for runtimes that fuse whole integer operators only.
    quantize_outputs: bool = False


class OnnxWeightOnlyOptions(RecipeOptions):
    """Blocks of weights along the input with a scale each, multiplied by the operator MatMulNBits."""

    block_size: Literal[16, 32, 64, 128, 256] = 32
    # false: a zero point a block as well.
    symmetric: bool = True
    # 0 is the runtime's choice, 1 computes in fp32, 4 quantizes the activations to int8 on the fly.
    accuracy_level: Literal[0, 1, 2, 3, 4] = 4


class OnnxInt4Options(OnnxWeightOnlyOptions):
    """Int4 tables beside int4 weights."""

    embeddings: Tables = "int4"


class Int4Options(RecipeOptions):
    """Every recipe's options; the tables in int4 as well."""

    embeddings: Tables = "int4"


class TfliteDynamicInt4Options(Int4Options):
    """Weights in int4, activations quantized to int8 at run time."""

    # Weights along the input that share a scale; 0: one scale a channel.
    block_size: Literal[0, 32, 64, 128, 256] = 32


class TfliteStaticOptions(StaticOptions):
    """Which ops get calibrated int8 activations; the others compute in float32."""

    operations: tuple[str, ...] = ("FULLY_CONNECTED",)
