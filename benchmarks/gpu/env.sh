# Sourced on the GPU machine: the joined packages first, CUDA's libraries where torch's wheels have them.
work=${WORK:-/tmp/gpu}
python3 benchmarks/gpu/join.py --work "$work"
PYTHONPATH=$work/site
for name in ort rtx small; do
    [ -d "$work/site-$name" ] && PYTHONPATH=$PYTHONPATH:$work/site-$name
done
export PYTHONPATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=$work/cache TF_CPP_MIN_LOG_LEVEL=3
libraries=$(python3 -c 'import site, glob; print(":".join(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/*/lib")))')
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
