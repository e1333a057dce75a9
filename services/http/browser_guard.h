// BrowserGuard: who asks, where nothing but a browser stands between us and the pages of others. A browser sends what any page
// tells it to, from inside of loopback and of the networks that firewalls keep others out of.
//   pages   A request made by a page of another origin says so: in Sec-Fetch-Site, which no page can write, else in Origin
//           (browsers send the first to https and to loopback alone). A proxy in front may have changed Host, so the first
//           decides where there is one, as in Go's http.CrossOriginProtection.
//   hosts   A page whose name was made to point to this machine (DNS rebinding) is of our own origin, but that name is in Host.
// Neither header comes from clients that are no browser; a Host that is absent names nobody. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/http/http_message.h"

namespace runahead {

struct BrowserGuard {
  std::vector<std::string> origins = {};  // of others, whose pages may ask ("https://chat.example"); "*": all
  // What Host may say beside localhost, names below it and addresses of loopback, without a port; "*": all. None: not asked.
  std::optional<std::vector<std::string>> hosts = {};

  // 403, with what to do.
  std::optional<HttpReply> refuses(const HttpRequest& request) const;
  bool allows_origin(std::string_view origin) const;  // of the others
};

// A name or an address as a URL has it, without a port ("llm.example", "[fd00::1]").
bool is_host_name(std::string_view text);

}  // namespace runahead
