#!/bin/sh
# mypy and import-linter on the sources as they stand: sh scripts/mypy.sh
# Both want the folders laid out as the package is; links do that, without an installation. test.sh checks the installed package.
# VENV chooses the environment that holds both (default .venv, else those on the PATH).
set -eu
cd "$(dirname "$0")/.."
here=$(pwd)
bin=${VENV:-$here/.venv}/bin
[ -x "$bin/mypy" ] && PATH=$bin:$PATH
tree=$here/.mypy_cache/tree
rm -rf "$tree"
mkdir -p "$tree/mal_trt"
for entry in "$here"/mal_trt/*; do ln -s "$entry" "$tree/mal_trt/"; done
for folder in training export calibration engines examples; do ln -s "$here/$folder" "$tree/mal_trt/$folder"; done
cd "$tree"
mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" -p mal_trt
PYTHONPATH=$tree lint-imports --no-cache --no-logo "$here/pyproject.toml"
