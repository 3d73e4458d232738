#!/usr/bin/env bash
# Refuse wrong inputs before anything slow; say where everything is.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

# one_of INPUT VALUE ALLOWED...
one_of() {
  local name="$1" value="$2" allowed
  shift 2
  for allowed in "$@"; do
    [[ "$value" != "$allowed" ]] || return 0
  done
  fail "$name: '$value' is not one of: $*"
}
one_of mode "$INPUT_MODE" check release
one_of private "$INPUT_PRIVATE" true false ""
one_of allow-failed "$INPUT_ALLOW_FAILED" true false
one_of allow-misfit "$INPUT_ALLOW_MISFIT" true false
one_of replace "$INPUT_REPLACE" true false
one_of verify-download "$INPUT_VERIFY_DOWNLOAD" true false
one_of cache "$INPUT_CACHE" true false

# Better said before a build than after it.
if [[ "$INPUT_MODE" == release ]]; then
  use_token
  require_identity
fi

tag="$INPUT_TAG"
if [[ -z "$tag" && "${GITHUB_REF_TYPE:-}" == tag ]]; then
  tag="$GITHUB_REF_NAME"
fi
# A folder of its own for each use, since a job may use the action for several recipes.
state="$(mktemp -d "$RUNNER_TEMP/hubsplice.XXXXXX")"
annotated python -m hubsplice.github_actions target "$INPUT_RECIPE" \
  --repo-id "$INPUT_REPO_ID" --tag "$tag" --state "$state" >>"$GITHUB_OUTPUT"
