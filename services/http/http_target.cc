#include "services/http/http_target.h"

#include <algorithm>
#include <boost/url/params_encoded_view.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/parse_query.hpp>
#include <boost/url/pct_string_view.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>

namespace runahead {

namespace urls = boost::urls;

HttpTarget split_target(std::string_view target) {
  // Not parse_origin_form(): it refuses the brackets and bare UTF-8 that scrapers and browsers put into queries.
  const auto cut = [](std::string_view text) {
    const size_t question = text.find('?');
    const std::string_view query = question == std::string_view::npos ? "" : text.substr(question + 1);
    return HttpTarget{std::string(text.substr(0, question)), std::string(query)};
  };
  if (target.starts_with('/') || target == "*") return cut(target);
  const size_t authority = target.find("://");
  if (authority == std::string_view::npos) return {std::string(target), ""};
  const size_t end = std::min(target.size(), target.find_first_of("/?#", authority + 3));
  const auto uri = urls::parse_absolute_uri(target.substr(0, end));
  const bool is_http = uri && uri->has_authority() &&
                       (uri->scheme_id() == urls::scheme::http || uri->scheme_id() == urls::scheme::https);
  if (!is_http || target.substr(end).starts_with('#')) return {std::string(target), ""};
  HttpTarget absolute = cut(target.substr(end));
  if (absolute.path.empty()) absolute.path = "/";  // RFC 9112, 3.2.1
  return absolute;
}

std::string percent_decoded(std::string_view text) {
  const auto encoded = urls::make_pct_string_view(text);
  return encoded ? encoded->decode() : std::string(text);
}

Result<std::vector<QueryParam>> parse_query(std::string_view query) {
  std::vector<QueryParam> params;
  if (query.size() > 1 && query.ends_with('&')) query.remove_suffix(1);
  if (query.empty()) return params;
  const auto parsed = urls::parse_query(query);
  if (!parsed) return fail(ErrorCode::kInvalidArgument, "the query cannot be read: " + parsed.error().message());
  for (const urls::param_pct_view& param : *parsed) params.push_back({param.key.decode(), param.value.decode()});
  return params;
}

bool is_origin(std::string_view text) {
  const auto uri = urls::parse_uri(text);
  return uri && !uri->encoded_host().empty() && uri->encoded_path().empty() && !uri->has_query() &&
         !uri->has_fragment() && !uri->has_userinfo();
}

std::optional<int64_t> whole_number(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) return {};
  return value;
}

}  // namespace runahead
