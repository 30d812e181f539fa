#!/bin/sh
# The three ways to one result, with curl alone.
set -eu
base=${TOKENPOST_BASE_URL:-http://127.0.0.1:8000/v1}
model=${TOKENPOST_MODEL:-smollm2}

ask() {
    path=$1 body=$2
    shift 2
    curl -sS --fail-with-body "$@" "$base$path" \
        -H 'content-type: application/json' -H "authorization: Bearer ${TOKENPOST_API_KEY:-none}" -d "$body"
}
fetch() {
    curl -sS --fail-with-body -N "$base$1" -H "authorization: Bearer ${TOKENPOST_API_KEY:-none}"
}

echo '--- wait for it'
ask /responses "{\"model\": \"$model\", \"input\": \"Hello! Who are you?\"}"
echo

echo '--- stream it'
ask /chat/completions "{\"model\": \"$model\", \"stream\": true, \"max_tokens\": 30,
    \"messages\": [{\"role\": \"user\", \"content\": \"Count from 1 to 5.\"}]}" -N

echo '--- post it now, fetch it later'
# -i shows the headers: 202, location, x-job-id.
job=$(ask /async/completions "{\"model\": \"$model\", \"prompt\": \"Once upon a time\", \"max_tokens\": 20}" -i)
echo "$job"
id=$(echo "$job" | sed -n 's/^x-job-id: *\([A-Za-z0-9_-]*\).*/\1/p')
until fetch "/async/completions/$id" | grep -q '"text_completion"'; do sleep 0.2; done
fetch "/async/completions/$id"
echo

echo '--- and the same job once more, as a stream'
fetch "/completions/$id?stream=true&starting_after=0"
