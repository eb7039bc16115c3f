#!/bin/sh
# All that needs an NVIDIA GPU, in one go: tests, engines, speed, quality.
#   sh benchmarks/gpu.sh OUT [DATA]
# OUT gets a folder of JSON and logs; DATA is as for benchmark_cpu.sh, without it the example photos are used (no mIoU,
# no INT8). `mal-trt` must be installed with the extras of what the machine has; a step that fails is noted and the
# next one goes on. STEPS chooses among: about tests field torch engines rtx onnxruntime train (default: all).
# `train` goes on training the bundled model for MINUTES (8), on PACKED, a folder of pack_data.py.
set -u
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
data=${2:+$(cd "$2" && pwd)}
packed=${PACKED:+$(cd "$PACKED" && pwd)}
steps=${STEPS:-about tests field torch engines rtx onnxruntime ${packed:+train}}
cd "$out"

try() { # NAME COMMAND...: its output goes to NAME.log
    name=$1
    shift
    began=$(date +%s)
    "$@" >"$name.log" 2>&1
    code=$?
    echo "$name: exit $code after $(($(date +%s) - began)) s" | tee -a steps.txt
    return $code
}

# Options that say what to label.
samples() {
    [ -z "$data" ] || printf '%s\n' --images "$data/coco/images-00.tar" --annotations "$data/coco/val.json"
}

speed() { # NAME "MODEL ..." [OPTION ...]: both speeds of models, the first being the reference
    name=$1
    models=$2
    shift 2
    set -- $(printf -- '--model %s ' $models) $(samples) "$@"
    try "$name" mal-trt benchmark "$@" --batch 1,8,32 --json-out "$name.json" --csv "$name.csv"
}

for step in $steps; do
    case $step in
    about)
        try nvidia_smi nvidia-smi
        try doctor mal-trt doctor
        ;;
    tests)
        try tests python -m pytest -m gpu "$here/../tests/gpu" -v --junitxml tests.xml
        ;;
    field)
        try field python "$here/mean_field_speed.py" --device cuda --json mean_field_speed_gpu.json
        ;;
    torch)
        try random_base python "$here/random_base.py" --size 512 --out base.pth
        try torch_base python "$here/torch_speed.py" --checkpoint base.pth --json torch_base.json
        ;;
    engines)
        try export_base mal-trt export base.pth -o base.onnx --head fixed
        try build_base mal-trt build-engine base.onnx -o base.fp16.engine --precision fp16 --batch 1,32,64
        speed engines_base base.fp16.engine
        try build_tiny mal-trt build-engine bundled -o tiny.fp16.engine --precision fp16 --batch 1,32,64
        models="bundled tiny.fp16.engine"
        if [ -n "$data" ]; then
            for precision in int8 fp8; do
                try "build_tiny_$precision" mal-trt build-engine bundled -o "tiny.$precision.engine" \
                    --precision "$precision" --batch 1,32,64 \
                    --images "$data/coco/images-00.tar" --boxes "$data/coco/train_boxes.json" &&
                    models="$models tiny.$precision.engine"
            done
        fi
        speed engines_tiny "$models" --plot engines_tiny.svg
        ;;
    rtx)
        try rtx_export mal-trt export bundled -o tiny.fp16.onnx --precision fp16
        try rtx_targets python "$here/rtx_targets.py" --model tiny.fp16.onnx --json rtx_targets.json
        ;;
    onnxruntime)
        try ort_fp16 mal-trt export bundled -o tiny.fp16.onnx --precision fp16
        speed ort_cuda tiny.fp16.onnx --device cuda
        ;;
    train)
        mkdir -p train
        try train python "$here/gpu/train.py" --data "${packed:?give PACKED, a folder of pack_data.py}" --out train \
            --seconds "$((${MINUTES:-8} * 60))"
        ;;
    *)
        echo "unknown step: $step" >&2
        exit 2
        ;;
    esac
done
