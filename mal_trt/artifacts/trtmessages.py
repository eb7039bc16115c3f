"""What TensorRT logs when it refuses, in one plain sentence each.

The library returns None instead of raising; its log is the only reason it gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Pattern -> sentence, most telling first; \\1, \\2 are the pattern's groups.
KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"Current Version: (\d+), Serialized Engine Version: (\d+)",
        r"the engine comes from another TensorRT version (serialization tag \2, here \1); build it again here",
    ),
    (
        r"kPLAN_MAGIC_TAG",
        "the file is no plan of this TensorRT: another kind of file, another TensorRT, another operating system, "
        "or bytes before the plan; build it again here",
    ),
    (
        r"incompatible device, expecting compute (\d+\.\d+) got compute (\d+\.\d+)",
        r"the engine was built for another GPU (compute capabilities \1 and \2 differ); build it again here",
    ),
    (r"plan\.header\.size == blobSize", "the engine file is cut short; copy it again or build it again"),
    (
        r"(?i)engine plan file across different models of devices",
        "the engine was built on another model of GPU; it may be slow or fail, build it again here",
    ),
    (r"BuildCanceled|canceled by user", "the build was stopped"),
    (
        r"(?i)out ?of ?memory|cannot allocate|std::bad_alloc|insufficient memory",
        "memory ran out; close other programs, or use a smaller --batch or --workspace",
    ),
    (
        r"(?i)could not find any implementation for node \{?([^\s{}]+)",
        r"no kernel was found for \1; give more --workspace, or a smaller --batch",
    ),
    (
        r"check_turing_op_compatibility|for Turing \(SM75\)",
        "Turing GPUs (compute capability 7.5) cannot run this precision; use --precision fp16 or leave out 7.5",
    ),
    (
        r"HW-specific datatypes: (\w+)",
        r"the model has \1 values, which one of the GPUs asked for does not know; fp8 needs compute capability 8.9",
    ),
    (
        r"libnvinfer_lean\S*: cannot open shared object",
        "--version-compatible needs the lean runtime, which is not installed; install tensorrt-lean",
    ),
    (
        r"setDecomposable|not supported by a dedicated kernel",
        "this TensorRT has no kernel for the Attention operator; export with --opset 20",
    ),
    (
        r"must have (?:the )?same input types",
        "the model mixes types in one operator; write its precision with mal-trt (--precision of an FP32 model)",
    ),
    (
        r"first input has type UInt8",
        "the uint8 input is used before it is cast to float; export the model with mal-trt",
    ),
    (
        r"Plugin not found|No importer registered",
        "the model has an operator this TensorRT does not know; export it again with `mal-trt export`, --opset 20",
    ),
    (
        r"(?i)unsupported opset|opset.*not supported",
        "the model's opset is too new for this TensorRT; export with --opset 20",
    ),
    (
        r"Dimension mismatch for tensor (\w+) and profile",
        r"the shapes to build for do not fit the model's `\1`; is its metadata its own?",
    ),
    (
        r"(?i)running layernorm after self-attention in FP16",
        "a LayerNorm in FP16 may overflow; write the precision with mal-trt, which keeps it in FP32",
    ),
    # Without a GPU these come with every other failure too.
    (
        r"(?i)initialization failure with error: 35|cudaError 35\b|driver version is insufficient",
        "there is no NVIDIA driver, or it is older than this TensorRT needs; see `mal-trt doctor`",
    ),
    (
        r"(?i)initialization failure with error: 100|cudaError 100\b|no CUDA-capable device",
        "the driver sees no GPU; see `mal-trt doctor`",
    ),
)


def explain(messages: Iterable[str]) -> str:
    """One sentence for a list of log messages: the first known one's, or else the first message, shortened."""
    messages = list(messages)
    for message in messages:
        if sentence := known(message):
            return sentence
    if not messages:
        return "TensorRT gave no reason"
    text = " ".join(messages[0].split())
    return text if len(text) <= 300 else text[:300] + "..."


def known(message: str) -> str | None:
    """The sentence for a message from the table, None if it is not in it."""
    for pattern, sentence in KNOWN:
        if found := re.search(pattern, message):
            return found.expand(sentence)
    return None
