// Announcer: a child process tells its parent over an inherited pipe where it listens, or why it could not start. One JSON
// object a line: {"event":"ready","control":"127.0.0.1:40001","http":"127.0.0.1:40002"} or
// {"event":"error","code":"not_found","message":"..."}. Without --announce-fd it is silent.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace runahead {

class Announcer {
 public:
  explicit Announcer(int fd = -1) : fd_(fd) {}
  void ready(const nlohmann::json& addresses) const;
  void error(const Error& error) const;

 private:
  void write_line(const nlohmann::json& line) const;
  int fd_;
};

}  // namespace runahead
