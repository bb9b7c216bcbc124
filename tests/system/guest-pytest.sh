#!/bin/bash
# guest-pytest.sh OPTIONS: run the tests of the guest; those that fail, once more. A processor
# without hardware virtualisation is too slow now and then, and a fault of ours comes again.
cache=/run/control/cache
run() {
    python3 -m pytest tests/system/guest --confcutdir=tests/system/guest \
        -o cache_dir=$cache --durations=0 --durations-min=0.5 \
        --tb=native -o faulthandler_timeout=500 "$@"
}
run --junit-xml=/run/control/junit.xml "$@" && exit
echo
echo "guest-pytest: SOME TESTS FAILED, once more"
run --junit-xml=/run/control/junit-again.xml --last-failed "$@"
