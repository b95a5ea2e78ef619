# Sourced by quickstart.sh and test.sh, not run: makes .venv in the repository and installs the package into it.
# The caller has changed to the root of the repository.

stop() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# The first Python that is new enough: $PYTHON if set, else python3, else the newest by its name.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    stop "Python 3.11 or newer is needed, and ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 || true)." \
        "Install it, or name it: PYTHON=/path/to/python $0"
}

# install_package EXTRAS: EXTRAS is empty or such as [test]. Does nothing if the same was installed before.
install_package() {
    local python wanted stamp=".venv/installed"
    wanted="$(cat pyproject.toml constraints.txt | cksum) $1"
    if [[ -x .venv/bin/python && -f $stamp ]] && grep -qxF "$wanted" "$stamp"; then
        return
    fi
    if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        python="$(find_python)" || exit 1
        echo "Making the environment .venv with $("$python" --version) …"
        rm -rf .venv
        "$python" -m venv .venv || stop "$python cannot make virtual environments (on Debian: apt install python3-venv)."
    fi
    echo "Installing the package and what it needs (a few minutes, the first time) …"
    if ! .venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable ".$1" \
        >.venv/pip.log 2>&1; then
        tail -n 5 .venv/pip.log >&2
        stop "pip could not install the packages; is there a network? Its whole output is in .venv/pip.log."
    fi
    echo "$wanted" >>"$stamp"
}
