#include "services/http/header_check.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "base/limits.h"

namespace runahead {
namespace {

std::unexpected<Error> bad(std::string message) { return fail(ErrorCode::kInvalidArgument, std::move(message)); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct Seen {
  int content_length = 0, transfer_encoding = 0, host = 0, authorization = 0, api_key = 0;
  size_t fields = 0;
};

Result<void> check_field(std::string_view line, Seen& seen) {
  if (line.front() == ' ' || line.front() == '\t')
    return bad("the header has a folded line; send each field on one line");
  if (++seen.fields > limits::kHttpHeadersMax) return bad("the header has too many fields; send at most 64");
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return bad("a header line has no name and colon");
  const std::string name = lower(line.substr(0, colon));
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (name == "content-length") {
    ++seen.content_length;
    const bool digits = !value.empty() && std::ranges::all_of(value, [](unsigned char c) { return std::isdigit(c); });
    if (!digits) return bad("Content-Length is not a plain number");
  } else if (name == "transfer-encoding") {
    ++seen.transfer_encoding;
    if (lower(value) != "chunked") return bad("the only supported Transfer-Encoding is chunked");
  } else if (name == "host") {
    ++seen.host;
  } else if (name == "authorization") {
    ++seen.authorization;
  } else if (name == "x-api-key") {
    ++seen.api_key;
  }
  return {};
}

}  // namespace

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

Result<void> check_header(std::string_view header) {
  if (header.find('\0') != std::string_view::npos) return bad("the header contains a NUL byte");
  Seen seen;
  bool first = true, http_1_1 = false;
  while (!header.empty()) {
    const size_t end = header.find("\r\n");
    if (end == std::string_view::npos) return bad("a header line does not end in CR LF");
    const std::string_view line = header.substr(0, end);
    header.remove_prefix(end + 2);
    if (line.find_first_of("\r\n") != std::string_view::npos) return bad("the header contains a bare CR or LF");
    if (line.empty()) break;
    if (first) {
      http_1_1 = line.ends_with("HTTP/1.1");
      first = false;
      continue;
    }
    TRY(check_field(line, seen));
  }
  if (!http_1_1 && seen.transfer_encoding > 0) return bad("HTTP/1.0 knows no Transfer-Encoding; send Content-Length");
  if (seen.content_length + seen.transfer_encoding > 1)
    return bad(
        "the header states the length of the body more than once; send Content-Length or Transfer-Encoding: chunked");
  if (seen.authorization > 1 || seen.api_key > 1) return bad("the header has two keys in fields of one name; send one");
  if (seen.host > 1 || (http_1_1 && seen.host == 0)) return bad("the header must name exactly one Host");
  return {};
}

}  // namespace runahead
