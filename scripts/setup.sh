#!/usr/bin/env bash
# Makes this folder ready to run: system libraries for rendering without a screen, a C compiler, .venv, the Python
# packages, and one trial of the renderer. Called by make; may be called again at any time.
#
# PYTHON names the interpreter to use. Which index pip asks, and through which proxy, is pip's own configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GL_PACKAGES=(libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libopengl0)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# apt_install PACKAGE...: installs where that is allowed without asking for a password; returns 1 where it is not.
apt_install() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else return 1; fi
    fi
    say "installing system packages: $*"
    # A stale list of packages names files that are gone, so it is renewed; without a network the old one may still do.
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -qq update || say "apt-get update failed, going on with the old lists"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y \
        install --no-install-recommends "$@" >/dev/null
}

on_debian() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

# Prints those of the packages given that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
    done
}

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the first supported interpreter; one that can make a virtual environment goes before one that cannot.
find_python() {
    local candidate fallback=""
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null && supported "$candidate"; then
            if can_make_venv "$candidate"; then echo "$candidate"; return; fi
            fallback=${fallback:-$candidate}
        fi
    done
    echo "$fallback"
}

install_gl() {
    if ! on_debian; then
        say "this is no Debian or Ubuntu: rendering needs Mesa's EGL (Fedora: sudo dnf install mesa-libEGL mesa-dri-drivers)"
        return
    fi
    local missing
    mapfile -t missing < <(missing_packages "${GL_PACKAGES[@]}")
    if [ ${#missing[@]} -gt 0 ] && ! apt_install "${missing[@]}"; then
        say "if rendering fails below, run: sudo apt-get install -y ${missing[*]}"
    fi
}

# Learning on the processor takes some loops in C, compiled at first use; it only is slower without.
install_compiler() {
    if command -v "${CC:-cc}" >/dev/null; then return; fi
    if ! on_debian || ! apt_install gcc libc6-dev; then
        say "without a C compiler learning is slower; Debian and Ubuntu: sudo apt-get install -y gcc libc6-dev"
    fi
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" || die "PYTHON=$PYTHON is not a Python from 3.11 to 3.13"
        python=$PYTHON
    else
        python=$(find_python)
        if [ -z "$python" ] && on_debian && apt_install python3 python3-venv; then python=$(find_python); fi
        [ -n "$python" ] || die "no Python from 3.11 to 3.13 was found; install one, or name it: make PYTHON=/path/to/python3.12 ..."
    fi
    if ! can_make_venv "$python"; then
        local package
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if ! on_debian || ! apt_install "$package" || ! can_make_venv "$python"; then
            die "$python cannot make virtual environments; run: sudo apt-get install -y $package"
        fi
    fi
}

make_venv() {
    if [ -x .venv/bin/python ] && supported .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; then
        return
    fi
    choose_python
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

install_gl
install_compiler
make_venv
say "installing the Python packages (some hundred MB the first time)"
.venv/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
.venv/bin/fosp doctor --only gl || die "rendering does not work here yet; the line above says what to run, then make again"
say "ready"
