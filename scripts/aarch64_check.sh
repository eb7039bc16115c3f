#!/bin/sh
# Does it run on a 64-bit Arm processor, as a Jetson has? As root on a Debian or Ubuntu of x86-64:
#   sh scripts/aarch64_check.sh [arguments for pytest]
# Makes an arm64 Debian in a folder, emulated by QEMU; installs mal-trt with the extra `jetson` there, from wheels alone;
# labels the example photos there and here, and compares every mask; runs the runtime's tests that need no GPU.
# Needs debootstrap, qemu-user-static, a network and 2 GB; emulated, it takes half an hour, or more than
# an hour on a busy machine. The folder is removed at the end.
# ROOT is that folder, PYTHON an interpreter here with mal-trt[cpu], RECORD a JSON file for what was found,
# SUITE the Debian, MIRROR where it comes from, TESTS the tests to run.
set -eu
cd "$(dirname "$0")/.."
root=${ROOT:-${TMPDIR:-/tmp}/mal-trt-aarch64}
python=${PYTHON:-python3}
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
record=${RECORD:-}
tests=${TESTS:-tests/test_public.py tests/base tests/geometry tests/formats tests/artifacts tests/writers
    tests/labelling/test_resume.py tests/labelling/test_label_formats.py tests/labelling/test_workers.py}

fail() { echo "aarch64_check.sh: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts"
[ ! -e "$root" ] || fail "$root exists; remove it, or set ROOT"
for command in debootstrap qemu-aarch64-static; do
    command -v $command >/dev/null || fail "no $command; run: apt install debootstrap qemu-user-static"
done
"$python" -c 'import mal_trt, onnxruntime' || fail "$python has no mal-trt[cpu]; set PYTHON"

# The kernel hands Arm programs to QEMU once it knows how they begin. F: QEMU is opened now, so chroots need no copy.
binfmt=/proc/sys/fs/binfmt_misc
mounted='' registered=''
leave() {
    set +e
    umount "$root/proc" 2>/dev/null
    [ -z "$registered" ] || echo -1 >$binfmt/mal-trt-aarch64
    [ -z "$mounted" ] || umount $binfmt
    grep -q " $root" /proc/mounts || rm -rf --one-file-system "$root"
}
trap leave EXIT
trap 'exit 1' INT TERM
if [ ! -e $binfmt/register ]; then
    mount -t binfmt_misc binfmt_misc $binfmt
    mounted=1
fi
if ! grep -qs '^magic 7f454c460201010.*b7' $binfmt/*aarch64*; then
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":mal-trt-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >$binfmt/register
    registered=1
fi

begun=$(date +%s)
step() { now=$(date +%s); echo "[$((now - begun)) s] $*"; }
inside() {
    chroot "$root" /usr/bin/env -i HOME=/root PATH=/opt/venv/bin:/usr/bin:/bin LC_ALL=C.UTF-8 \
        PYTHONDONTWRITEBYTECODE=1 PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"
}

step "an arm64 Debian ($suite) in $root"
debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$suite" "$root" "$mirror" >"$root.log" 2>&1 || { tail "$root.log" >&2; exit 1; }
rm "$root.log"
mount -t proc proc "$root/proc"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
[ "$(inside uname -m)" = aarch64 ]

step "the wheel, and mal-trt[jetson] from it"
rm -rf build
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$root/opt/wheels" .
rm -rf build
inside python3 -m venv /opt/venv
wheel=$(cd "$root" && echo opt/wheels/*.whl)
inside python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    "/$wheel[jetson]" "pytest>=8" "hypothesis>=6" onnx pyarrow
cp -r tests examples pyproject.toml "$root/opt/"

step "the example photos, here and there"
here=$(mktemp -d)
"$python" -m mal_trt.cli label --quiet --images examples/photos --boxes examples/boxes.json --device cpu --out "$here/labels.json"
inside mal-trt label --quiet --images /opt/examples/photos --boxes /opt/examples/boxes.json --device cpu --out /opt/labels.json

step "tests"
set +e
inside sh -c 'cd /opt && exec python -m pytest -q -p no:cacheprovider -m "not gpu and not slow" --junitxml /opt/tests.xml "$@"' \
    pytest $tests "$@"
passed=$?
set -e
step "done"

inside python -m pip list --format json >"$here/packages.json" 2>/dev/null
"$python" scripts/aarch64_record.py "$here" "$root" "$(($(date +%s) - begun))" ${record:+"$record"}
rm -rf "$here"
exit "$passed"
