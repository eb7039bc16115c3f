#!/bin/sh
# The table of the README, measured on this machine: this program against what people would use instead.
#   sh benchmarks/headline.sh                                   the example photos
#   sh benchmarks/headline.sh --images PICTURES --boxes BOXES   your own, with drawn masks for the mIoU
# Further options: those of headline.py. It needs nothing but Python 3.10 or newer: all that is compared is installed
# into .venv-headline (3 GB, PyTorch above all), or VENV. PYTHON names a Python that has it already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
if [ -z "${PYTHON:-}" ]; then
    venv=${VENV:-$root/.venv-headline}
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    PYTHON=$venv/bin/python
    echo "Setting up in $venv ..."
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$root[cpu,train,benchmark]"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$root[openvino]" ||
        echo "OpenVINO cannot be installed here; the rest is measured without it" >&2
fi
exec "$PYTHON" "$here/headline.py" "$@"
