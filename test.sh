#!/bin/sh
# Set up and pass the tests: sh test.sh [arguments for pytest]
# VENV chooses the environment (default .venv), CONSTRAINTS the pinned versions (default constraints.txt, for
# Python 3.11 or newer; /dev/null takes the newest), JOBS the processes that run tests (default: one for each core).
# Everything is checked as installed, not from the sources.
set -eu
cd "$(dirname "$0")"
here=$(pwd)
venv=${VENV:-$here/.venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# setuptools would carry files deleted since into the new build
rm -rf build
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "${CONSTRAINTS:-constraints.txt}" \
    ".[cpu,train,export,rtx,benchmark,docs,dev]"
# Only its description of a model's configuration is wanted, and its requirements would hold protobuf back.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "tritonclient==2.73.0"

"$venv/bin/ruff" check .
# From another folder, or these two would take the source folders, which are not laid out as the package is.
(cd "$venv" && bin/mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" -p mal_trt)
# Benchmarks are run by hand: of their types it counts that they call the package as it is now.
for folder in benchmarks benchmarks/gpu; do
    (cd "$folder" && "$venv/bin/mypy" --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" \
        --ignore-missing-imports --disable-error-code arg-type --disable-error-code var-annotated \
        --disable-error-code no-any-return *.py)
done
(cd "$venv" && bin/lint-imports --no-cache --no-logo "$here/pyproject.toml")
# A process for each core; each begins with a half of the tests in order, so that what a file shares is made once.
"$venv/bin/pytest" -m "not gpu" -n "${JOBS:-auto}" --dist worksteal "$@"
