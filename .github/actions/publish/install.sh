#!/usr/bin/env bash
# PyTorch first, so that hubsplice's requirement is met by the build that was asked for.
set -euo pipefail

install() {
  python -m pip install --quiet --disable-pip-version-check "$@"
}

if [[ -n "$INPUT_TORCH" ]]; then
  if [[ -n "$INPUT_TORCH_INDEX_URL" ]]; then
    install --index-url "$INPUT_TORCH_INDEX_URL" "$INPUT_TORCH"
  else
    install "$INPUT_TORCH"
  fi
fi
install "${INPUT_HUBSPLICE:-"$GITHUB_ACTION_PATH/../../.."}"
hubsplice --version
