#!/usr/bin/env bash
# Make this machine ready for waguard: what is missing is installed, what is there is left alone.
# Safe to run at any time; when nothing is missing it downloads nothing and is done in a moment.
# With --tests the full browser is installed beside Debian's headless-shell, if it can be: the tests try both.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}
# What a command says is shown only when it fails.
quiet() {
    local said
    said=$("$@" 2>&1 </dev/null) || {
        printf '%s\n' "$said" >&2
        return 1
    }
}

# The first on PATH that is new enough, as the program it really is and not a version manager's stand-in for it.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        "$name" -c 'import os, sys
if sys.version_info < (3, 11): sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null && return
    done
    return 1
}

# The same places that waguard/browser/find.py looks at.
has_browser() {
    local path
    for path in "${WAGUARD_BROWSER__PATH:-}" \
        /usr/lib/chromium/chromium-headless-shell \
        /usr/lib/chromium/chromium \
        /usr/lib/chromium-browser/chromium-browser \
        /usr/lib64/chromium-browser/chromium-browser \
        /opt/google/chrome/chrome \
        /opt/google/chrome-beta/chrome; do
        [[ -x $path ]] && return
    done
    return 1
}

has_font() {
    [[ -n $(find /usr/share/fonts /usr/local/share/fonts \( -name '*.ttf' -o -name '*.otf' \) -print -quit 2>/dev/null) ]]
}

# The Debian packages that would bring what is not there, one a line.
missing() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "${python##*/}-venv"
    has_browser || echo chromium-headless-shell
    command -v bwrap >/dev/null || echo bubblewrap
    command -v setpriv >/dev/null || echo util-linux
    has_font || echo fonts-liberation
}

install_packages() {
    local become=() apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    command -v apt-get >/dev/null ||
        die "missing: $*. These are Debian's names, and this machine has no apt-get." \
            "Install the like with its own package manager, then run make again."
    if ((EUID != 0)); then
        become=(sudo -n)
        sudo -n true 2>/dev/null ||
            die "missing: $*. Installing them needs root." \
                "Run this as root, then run make again: apt-get update && apt-get install --no-install-recommends $*"
    fi
    say "installing $* (apt-get)"
    quiet "${become[@]}" "${apt[@]}" update || say "apt-get update failed; trying with the lists that are there"
    quiet "${become[@]}" "${apt[@]}" install --no-install-recommends "$@" ||
        die "apt-get could not install: $*. What it said is above." \
            "Without a network, install these packages by hand, then run make again."
}

both_browsers() {
    local full=/usr/lib/chromium/chromium
    [[ -x $full-headless-shell && ! -x $full ]] || return 0
    (install_packages chromium) || say "without it: only headless-shell is tested"
}

make_venv() {
    # A virtual environment knows its own place and its Python: another of either means another one.
    local place needed
    place="$PWD $python $("$python" -V)"
    needed=$(cat requirements.lock pyproject.toml scripts/bootstrap.sh | sha256sum)
    if [[ $(cat "$venv/.place" 2>/dev/null) != "$place" ]]; then
        say "making $venv with $("$python" -V)"
        quiet "$python" -m venv --clear "$venv" || die "$python could not make $venv. What it said is above."
        echo "$place" >"$venv/.place"
    fi
    [[ $(cat "$venv/.installed" 2>/dev/null) == "$needed" ]] && return
    say "installing $(grep -c == requirements.lock) Python packages (requirements.lock)"
    pip install --use-pep517 --requirement requirements.lock &&
        pip install --no-deps --no-build-isolation --editable . ||
        die "pip could not install what requirements.lock names. What it said is above." \
            "The first time needs a network, or a package index of your own in pip's configuration."
    echo "$needed" >"$venv/.installed"
}

pip() { quiet "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }

python=$(find_python) ||
    die "no Python 3.11 or newer on PATH." "On Debian 12 or later: apt-get install python3"
mapfile -t packages < <(missing)
if ((${#packages[@]})); then
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing)
    ((${#packages[@]} == 0)) || die "still missing after apt-get install: ${packages[*]}."
fi
[[ ${1:-} != --tests ]] || both_browsers
make_venv
