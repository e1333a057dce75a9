// What `runahead top` shows of a cluster, as text for a terminal of a given size. Pure: the answers of /v1/cluster and
// /v1/requests in, lines out. What comes from the server is made printable and cut, so that no name moves the cursor.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace runahead {

struct TopFrame {
  int columns = 80, rows = 24;  // rows 0: as many as there are
  bool colour = false;
  std::string title;  // where and when
  std::string away;  // empty, or why the server does not answer: what is shown is of before
};

// Lines that each end with \n, at most `rows` of at most `columns` characters.
std::string top_text(const nlohmann::json& cluster, const nlohmann::json& requests, const TopFrame& frame);

}  // namespace runahead
