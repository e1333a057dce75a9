// One line for each request that was answered, at level info; health checks and scrapes at debug, for they come every
// second. What the client chose (method, path) is escaped and cut.
#pragma once

#include <string>

#include "services/http/http_message.h"

namespace runahead {

struct AccessRecord {
  const HttpRequest& request;
  int status = 0;
  size_t sent_bytes = 0;  // of head and body
  double seconds = 0;     // from the first byte of the request to the last of the answer
  bool complete = true;   // false: the client went away before
};

std::string access_line(const AccessRecord& record);
void log_access(const AccessRecord& record);

}  // namespace runahead
