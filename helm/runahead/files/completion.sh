# helm test: one streamed completion through the whole cluster, and its time to the first token. The image has bash, no curl.
# HOST, PORT: the API's; BODY: the request.
set -euo pipefail
export LC_ALL=C  # ${#BODY} counts bytes
keys=${KEYS:-/etc/runahead-keys/api-keys}
authorization=
if [[ -f $keys ]]; then
  read -r key <"$keys" || [[ -n $key ]]
  authorization="Authorization: Bearer $key"$'\r\n'
fi

exec 3<>"/dev/tcp/$HOST/$PORT"
begin=${EPOCHREALTIME/./}
printf 'POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n' \
  "$HOST" "$authorization" "${#BODY}" >&3
printf 'Connection: close\r\n\r\n%s' "$BODY" >&3

status='' first='' said='' ended=''
while IFS= read -r -t 120 line <&3 || [[ -n $line ]]; do
  line=${line%$'\r'}
  case $line in
    'HTTP/1.1 '*) status=${line#* } ;;
    'data: [DONE]') ended=yes && break ;;
    'data: {"error"'* | '{"error"'*) said=$line && break ;;
    'data: '*)
      [[ -n $first ]] || first=${EPOCHREALTIME/./}
      [[ $line =~ \"ttft_seconds\":([0-9.e-]+) ]] && said=${BASH_REMATCH[1]}
      ;;
  esac
done
if [[ $status != 200* || -z $first || -z $ended ]]; then
  echo "no completion: HTTP ${status:-did not answer}: ${said:-no reason was given}" >&2
  exit 1
fi
printf 'time to first token: %d ms here, %s s at the coordinator\n' "$(((first - begin) / 1000))" "${said:-unknown}"
