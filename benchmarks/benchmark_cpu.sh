#!/bin/sh
# The bundled model in FP32, FP16 and INT8 on this machine's processor; the table of `mal-trt benchmark`:
#   sh benchmarks/benchmark_cpu.sh DATA [options for mal-trt benchmark]
# DATA holds coco/images-00.tar, coco/train_boxes.json (INT8's ranges) and coco/val.json (drawn masks). Ends with
# benchmarks/results/benchmark_cpu.json. Nothing else should run meanwhile: the JSON holds the load before it began.
set -eu
results=$(cd "$(dirname "$0")" && pwd)/results
data=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$data" data  # so that the command recorded names no folder of this machine
mal-trt export bundled -o tiny.fp16.onnx --precision fp16 --quiet
mal-trt calibrate bundled --images data/coco/images-00.tar --boxes data/coco/train_boxes.json -o tiny.int8.onnx \
    --sensitivity-crops 0 --quiet
mal-trt benchmark --model bundled --model tiny.fp16.onnx --model tiny.int8.onnx --device cpu --backend onnxruntime \
    --images data/coco/images-00.tar --annotations data/coco/val.json --count 400 --json-out benchmark_cpu.json "$@"
cp benchmark_cpu.json "$results/benchmark_cpu.json"
