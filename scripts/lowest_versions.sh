#!/bin/sh
# The runtime's tests on the lowest versions that pyproject.toml allows, so that its lower bounds are true:
#   sh scripts/lowest_versions.sh [arguments for pytest]
# EXTRAS chooses what is installed at its lowest, VENV the environment (made anew), PYTHON the interpreter: by default the oldest
# one here from 3.10 on, since the lowest versions have no wheels for the newest.
# Only what the package itself names is at its lowest; what those packages need, and pytest, are the newest that fit.
set -eu
cd "$(dirname "$0")/.."
extras=${EXTRAS:-cpu,calibrate,parquet,benchmark}
venv=${VENV:-$(pwd)/.venv-lowest}
for python in ${PYTHON:-python3.10 python3.11 python3}; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
done

"$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install "uv>=0.5"
uv() { "$venv/bin/uv" "$@" --quiet --python "$venv/bin/python"; }
uv pip compile --resolution lowest-direct --no-header --no-annotate \
    $(echo "$extras" | tr , '\n' | sed 's/^/--extra /') pyproject.toml -o "$venv/lowest.txt"
rm -rf build
uv pip install -r "$venv/lowest.txt" . "pytest>=8" "pytest-xdist>=3.6" "hypothesis>=6"
names='numpy pillow pycocotools rich typer onnx ml-dtypes onnxruntime pyarrow matplotlib'
echo "$("$venv/bin/python" -V):" $(grep -E "^($(echo "$names" | tr ' ' '|'))==" "$venv/lowest.txt")

"$venv/bin/pytest" -m "not gpu and not slow" -n "${JOBS:-auto}" --dist worksteal -p no:cacheprovider -q -r fE "$@" \
    tests/test_public.py tests/base tests/geometry tests/formats tests/artifacts tests/writers tests/backends \
    tests/labelling tests/measure tests/calibration tests/cli
