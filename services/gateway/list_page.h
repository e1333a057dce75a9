// One page of a list, as OpenAI's clients ask for it: ?limit=20&after=ID&order=desc. The query's names are checked by the router.
//   threads  pure; any.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "services/http/http_target.h"

namespace runahead {

struct ListPage {
  size_t limit = 20;
  std::string after;  // an id: what comes behind it in the order
  bool ascending = false;  // oldest first
  std::string purpose;  // empty: any
};
// kInvalidArgument, with the parameter.
Result<ListPage> parse_list_page(const std::vector<QueryParam>& params, size_t limit_default, size_t limit_max);

// rows: newest first, each with an "id". kNotFound if none of them is ListPage::after.
Result<nlohmann::json> list_json(std::vector<nlohmann::json> rows, const ListPage& page);

}  // namespace runahead
