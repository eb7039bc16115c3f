#!/bin/sh
# The stages of the GPU proof as short as can be, on a machine without a GPU: what runs on a CPU must pass, what needs the
# GPU must fail alone and cost the next step nothing.
#   sh benchmarks/gpu/rehearse.sh OUT        STAGES="driver onnxruntime" chooses among the stages
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
export WORK="$out/work"
mkdir -p "$WORK"
for stage in ${STAGES:-driver torch onnxruntime host rtx}; do
    "${PYTHON:-python3}" "$here/stage.py" "$stage" --out "$out" --work "$WORK" --quick >"$out/$stage.log" 2>&1
done
"${PYTHON:-python3}" "$here/report.py" "$out" --json "$out/report.json"
