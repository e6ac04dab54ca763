#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in the order in which it is wanted when the time with one is short.
# Each part writes its log into the folder, has a limit of its own, and the next one runs even if it fails.
#
#   docs/benchmarks/run.sh FOLDER [PYTHON]
#
# Needs minires with CuPy (pip install -e ".[cuda13x,test]"), and PyTorch for the comparison. About 25 minutes at most.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: docs/benchmarks/run.sh FOLDER [PYTHON]}
python=${2:-python3}
mkdir -p "$out"
summary="$out/summary.txt"
: >"$summary"

part() { # part NAME SECONDS COMMAND...
    local name=$1 limit=$2 started=$SECONDS code=0
    shift 2
    echo "== $name: $*"
    timeout "$limit" "$@" 2>&1 | tee "$out/$name.log"
    code=${PIPESTATUS[0]}
    echo "$name: exit code $code$([ "$code" -eq 124 ] && echo " (over its limit of $limit s)"), $((SECONDS - started)) s" | tee -a "$summary"
}

part machine 60 "$python" -m minires doctor
part a_tests 420 "$python" -m pytest -q -m gpu tests
part b_capture 120 "$python" -m tests.cuda.capture_trial
part c_kernels 300 "$python" -m minires bench --device cuda --only kernels --seconds 240 --json "$out/kernels.json"
part d_steps 590 "$python" -m minires bench --device cuda --only steps --seconds 480 --json "$out/steps.json"
echo
cat "$summary"
