#include "services/http/access_log.h"

#include <algorithm>
#include <cstdio>

#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

// Letters, digits and signs as they are; all else, quotes and backslashes too, as %XX.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, limits::kAccessLogPathBytesMax)) {
    const bool plain = c > ' ' && c < 0x7f && c != '"' && c != '\\';
    char escaped[4] = {c, 0};
    if (!plain) std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned char>(c));
    out += escaped;
  }
  return text.size() > limits::kAccessLogPathBytesMax ? out + "..." : out;
}

std::string or_dash(std::string text) { return text.empty() ? "-" : text; }

}  // namespace

std::string access_line(const AccessRecord& record) {
  const HttpRequest& request = record.request;
  char rest[96];
  std::snprintf(rest, sizeof rest, " status=%d bytes=%zu seconds=%.6f%s", record.status, record.sent_bytes,
                record.seconds, record.complete ? "" : " cut=true");
  return "request id=" + request.request_id + " trace=" + or_dash(request.trace.trace_id) +
         " peer=" + or_dash(request.peer) + " method=" + or_dash(printable(request.method)) +
         " path=" + or_dash(printable(request.path)) + rest;
}

void log_access(const AccessRecord& record) {
  const bool refused = record.status >= 400 && record.status < 500;  // that was no probe, whatever its path
  const auto level = record.request.is_probe && !refused ? log::Level::kDebug : log::Level::kInfo;
  if (log::should_log(level)) log::line(level, "{}", access_line(record));
}

}  // namespace runahead
