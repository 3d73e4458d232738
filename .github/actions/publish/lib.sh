# shellcheck shell=bash
# What the steps share; read with `source`.

# Text as the message of a workflow command.
as_message() {
  local text="$1"
  text="${text//'%'/%25}"
  text="${text//$'\r'/%0D}"
  printf '%s' "${text//$'\n'/%0A}"
}

# fail MESSAGE [CODE]: end the step with an annotation.
fail() {
  printf '::error title=hubsplice::%s\n' "$(as_message "$1")"
  [[ -z "${STATE:-}" ]] || printf '%s\n' "$1" >"$STATE/error"
  exit "${2:-2}"
}

# annotated COMMAND...: run it; its warnings and its error become annotations of the run.
# Annotations go to descriptor 3, so that the command's stdout can be redirected.
exec 3>&1
annotated() {
  local log code=0 line message
  log="$(mktemp)"
  { "$@" 2>&1 1>&4 | tee "$log" >&2 || code=$?; } 4>&1
  while IFS= read -r line; do
    printf '::warning title=hubsplice::%s\n' "$(as_message "${line#warning: }")" >&3
  done < <(grep '^warning: ' "$log" || true)
  if ((code)); then
    # An error's message can have several lines; what else fails leaves a traceback.
    message="$(sed -n '/^error: /,$p' "$log")"
    [[ -n "$message" ]] || message="$(tail -n 3 "$log")"
    message="${message#error: }"
    printf '::error title=hubsplice, exit code %d::%s\n' "$code" "$(as_message "$message")" >&3
    [[ -z "${STATE:-}" ]] || printf '%s\n' "$message" >"$STATE/error"
  fi
  rm -f "$log"
  return "$code"
}

# use_token: the token that was given; an empty one would hide the job's own.
use_token() {
  [[ -z "${INPUT_HF_TOKEN:-}" ]] || export HF_TOKEN="$INPUT_HF_TOKEN"
  unset INPUT_HF_TOKEN
}

# require_identity: a token, or GitHub's word for who this job is.
require_identity() {
  [[ -z "${HF_TOKEN:-}${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]] || return 0
  fail "no way to sign in to the Hub: give the job \`permissions: id-token: write\` and name it as \
a trusted publisher in the settings of the repository, or give the action hf-token"
}

# use_publisher: the token that was given, or GitHub's word, which the Hub exchanges for a token of
# its own that lasts an hour and is good for this repository alone.
use_publisher() {
  use_token
  require_identity
  [[ -z "${HF_TOKEN:-}" ]] || return 0
  [[ "$REPO_ID" == */* ]] || fail "repo-id: $REPO_ID has no owner; a trusted publisher needs \
\`owner/name\`"
  export HF_OIDC_RESOURCE="$REPO_ID"
}

# publication: the options of `hubsplice publish` in the array OPTIONS.
publication() {
  OPTIONS=(--repo-id "$REPO_ID" --json)
  [[ -z "$TAG" ]] || OPTIONS+=(--tag "$TAG")
  [[ -z "$INPUT_LICENSE" ]] || OPTIONS+=(--license "$INPUT_LICENSE")
  case "$INPUT_PRIVATE" in
    true) OPTIONS+=(--private) ;;
    false) OPTIONS+=(--public) ;;
  esac
  if [[ "$INPUT_REPLACE" == true ]]; then OPTIONS+=(--replace); fi
  if [[ "$INPUT_ALLOW_FAILED" == true ]]; then OPTIONS+=(--allow-failed); fi
}
