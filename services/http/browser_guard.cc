#include "services/http/browser_guard.h"

#include <algorithm>

#include "services/http/api_error.h"
#include "services/http/header_check.h"
#include "transport/host_port.h"

namespace runahead {
namespace {

constexpr size_t kShownBytes = 80;  // of what the client wrote, in the error that refuses it

bool holds(const std::vector<std::string>& list, std::string_view one) {
  return std::ranges::find(list, "*") != list.end() || std::ranges::find(list, one) != list.end();
}

// "https://Chat.example:8443" -> "chat.example:8443"; "null" names nobody.
std::string authority_of(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string() : lower(origin.substr(scheme + 3));
}

bool is_of_another_page(const BrowserGuard& guard, const HttpRequest& request) {
  const std::string_view site = request.header("sec-fetch-site"), origin = request.header("origin");
  if (guard.allows_origin(origin)) return false;
  if (!site.empty()) return site != "same-origin" && site != "none";  // none: a person has typed the address
  const std::string authority = authority_of(origin);
  return !origin.empty() && (authority.empty() || authority != lower(request.header("host")));
}

// Without its port, in lower case; empty where what follows the name is none.
std::string name_of(std::string_view host) {
  const size_t bracket = host.find(']');
  const size_t end = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (end != std::string_view::npos) {
    if (host.find_first_not_of("0123456789", end + 1) != std::string_view::npos) return {};
    host = host.substr(0, end);
  }
  return lower(host);
}

bool is_here(const std::string& name) {
  const bool bracketed = name.starts_with('[') && name.ends_with(']');
  const std::string address = bracketed ? name.substr(1, name.size() - 2) : name;
  if (bracketed != (address.find(':') != std::string::npos)) return false;
  return is_loopback(address) || name.ends_with(".localhost");
}

bool is_ours(const std::vector<std::string>& hosts, std::string_view host) {
  const std::string name = name_of(host);
  return is_here(name) || holds(hosts, name);
}

}  // namespace

bool BrowserGuard::allows_origin(std::string_view origin) const { return holds(origins, origin); }

std::optional<HttpReply> BrowserGuard::refuses(const HttpRequest& request) const {
  const std::string_view host = request.header("host");
  if (hosts && !host.empty() && !is_ours(*hosts, host))
    return http_error(403, "unknown_host",
                      "'" + printable_line(host, kShownBytes) +
                          "' is no name of this listener, which is on loopback and needs no key; ask it as localhost, "
                          "or start it with --http-hosts and that name");
  if (!is_of_another_page(*this, request)) return {};
  const std::string_view origin = request.header("origin");
  return http_error(403, "foreign_origin",
                    "a page of " +
                        (origin.empty() ? "another origin" : "'" + printable_line(origin, kShownBytes) + "'") +
                        " may not ask this service; ask it by a program, or start the coordinator with --cors-origin "
                        "and the page's origin");
}

bool is_host_name(std::string_view text) {
  const bool bracketed = text.starts_with('[') && text.ends_with(']');
  const auto parsed = parse_host_port(std::string(text) + ":1");
  return parsed && (bracketed || parsed->host == text) && text.find_first_of("/@?#") == std::string_view::npos;
}

}  // namespace runahead
