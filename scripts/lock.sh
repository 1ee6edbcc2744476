#!/usr/bin/env bash
# Write requirements.lock anew: what a clean environment gets from pyproject.toml today.
set -euo pipefail
cd "$(dirname "$0")/.."

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
"${PYTHON:-python3}" -m venv "$room/venv"
mkdir "$room/source" # setuptools leaves a build/ where it builds
git ls-files -z | xargs -0 cp --parents --target-directory "$room/source"
"$room/venv/bin/python" -m pip install --quiet --upgrade 'setuptools>=77' "$room/source[test,docs]"
{
    grep '^#' requirements.lock
    "$room/venv/bin/python" -m pip freeze --all | grep -vE '^(pip|waguard)( |=)'
} >"$room/lock"
cat "$room/lock" >requirements.lock
echo "requirements.lock: $(grep -c == requirements.lock) packages"
