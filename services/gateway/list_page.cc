#include "services/gateway/list_page.h"

#include <algorithm>
#include <set>

#include "base/json_text.h"
#include "services/http/http_target.h"

namespace runahead {

using nlohmann::json;

Result<ListPage> parse_list_page(const std::vector<QueryParam>& params, size_t limit_default, size_t limit_max) {
  ListPage page{.limit = limit_default};
  std::set<std::string_view> seen;
  for (const auto& [name, value] : params) {
    if (!seen.insert(name).second) return fail(ErrorCode::kInvalidArgument, name + " comes twice; send it once", name);
    if (name == "limit") {
      const auto limit = whole_number(value, 1, static_cast<int64_t>(limit_max));
      if (!limit)
        return fail(ErrorCode::kInvalidArgument, "limit must be from 1 to " + std::to_string(limit_max), name);
      page.limit = static_cast<size_t>(*limit);
    } else if (name == "order") {
      if (value != "asc" && value != "desc")
        return fail(ErrorCode::kInvalidArgument, "order must be asc or desc", name);
      page.ascending = value == "asc";
    } else if (name == "after") {
      if (value.empty()) return fail(ErrorCode::kInvalidArgument, "after must be an id of the list", name);
      page.after = value;
    } else {
      page.purpose = value;
    }
  }
  return page;
}

Result<json> list_json(std::vector<json> rows, const ListPage& page) {
  if (page.ascending) std::ranges::reverse(rows);
  auto begin = rows.begin();
  if (!page.after.empty()) {
    begin = std::ranges::find_if(rows, [&](const json& row) { return row.at("id") == page.after; });
    if (begin == rows.end())
      return fail(ErrorCode::kNotFound, "the list has no " + printable_line(page.after, 64), "after");
    ++begin;
  }
  const auto count = std::min(static_cast<size_t>(rows.end() - begin), page.limit);
  const auto end = begin + static_cast<std::ptrdiff_t>(count);
  const bool has_more = end != rows.end();
  json data = json::array();
  std::ranges::move(begin, end, std::back_inserter(data));
  const json first = data.empty() ? json(nullptr) : data.front().at("id");
  const json last = data.empty() ? json(nullptr) : data.back().at("id");
  return json{
      {"object", "list"}, {"data", std::move(data)}, {"first_id", first}, {"last_id", last}, {"has_more", has_more}};
}

}  // namespace runahead
