#!/bin/sh
# Label real pictures on the CPU with the bundled model, on a machine that has only Python 3.10 or newer:
#   sh demo.sh                     the photos and boxes in examples/
#   sh demo.sh PICTURES BOXES      your own folder, tar or picture, and boxes in any format
#                                  that mal-trt reads: COCO, YOLO, VOC, CVAT and others
# Ends with out/labels.json, one overlay per picture in out/overlay/ and a contact sheet, out/contact_sheet.png.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${VENV:-$here/.venv-demo}
out=${OUT:-out}
if [ $# -ne 0 ] && [ $# -ne 2 ]; then
    echo "usage: sh demo.sh [PICTURES BOXES]" >&2
    exit 2
fi
images=${1:-$here/examples/photos}
boxes=${2:-$here/examples/boxes.json}

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
echo "Setting up in $venv ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$here[cpu]"

mkdir -p "$out"
# What an earlier demo wrote stays if this one fails.
before=$(mktemp -d "$out/before.XXXXXX")
restore() {
    rm -rf "$out"/labels.* "$out/overlay"
    mv "$before"/* "$out"/ 2>/dev/null || true
    rmdir "$before"
}
for old in "$out"/labels.* "$out/overlay"; do
    [ ! -e "$old" ] || mv "$old" "$before"
done
trap restore EXIT
trap 'exit 130' HUP INT TERM
"$venv/bin/mal-trt" label --images "$images" --boxes "$boxes" --out "$out/labels.json" \
    --overlay "$out/overlay" --sheet "$out/contact_sheet.png"
trap - EXIT
rm -rf "$before"
echo "labels:        $out/labels.json"
echo "contact sheet: $out/contact_sheet.png"
