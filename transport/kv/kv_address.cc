#include "transport/kv/kv_address.h"

#include <ranges>

#include "transport/host_port.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

bool leads_to_own_machine(std::string_view kv_address) {
  const size_t begin = kv_address.find("://"), end = kv_address.find('#');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return false;
  const auto place = parse_host_port(kv_address.substr(begin + 3, end - begin - 3));
  return place && is_loopback(place->host);
}

std::string_view part_in_common(std::string_view own, std::string_view theirs) {
  for (const auto mine : std::views::split(own, kBetweenKvAddresses))
    for (const auto part : std::views::split(theirs, kBetweenKvAddresses)) {
      const std::string_view address(part.begin(), part.end());
      if (const auto transport = kv_transport_of(address);
          !transport.empty() && transport == kv_transport_of(std::string_view(mine.begin(), mine.end())))
        return address;
    }
  return {};
}

std::string transport_in_common(std::string_view own, std::string_view theirs) {
  const std::string_view transport = kv_transport_of(part_in_common(own, theirs));
  return std::string(transport.substr(0, transport.find('-')));  // without the version of UCX
}

}  // namespace runahead
