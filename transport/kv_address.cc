#include "transport/kv_address.h"

#include "transport/host_port.h"

namespace runahead {

bool leads_to_own_machine(std::string_view kv_address) {
  const size_t begin = kv_address.find("://"), end = kv_address.find('#');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return false;
  const auto place = parse_host_port(kv_address.substr(begin + 3, end - begin - 3));
  return place && is_loopback(place->host);
}

}  // namespace runahead
